package cli

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

// What the demonstration is made of.
const (
	tryFile    = "millrace-try/hello.py"
	tryTrigger = "try-tick"
	tryRule    = "try-rule"
	tryAction  = "try-hello"
	tryFeed    = "/whisk.system/alarms/alarm"
	tryCron    = "*/2 * * * * *"
	// tryFilter lets every second event of tryCron pass, across the full
	// minute too: the second of the due time is a member of its events.
	tryFilter = `{"__ow_event":{"second":[0,4,8,12,16,20,24,28,32,36,40,44,48,52,56]}}`
	// watchEvery is how often the file is looked at for changes.
	watchEvery = 500 * time.Millisecond
	// listenWait bounds the wait for the stream to open before the first event.
	listenWait = 10 * time.Second
)

//go:embed hello.py
var helloPy []byte

// demo is the demonstration against a running server.
type demo struct {
	*app
	c    *client.Client
	file string
	code []byte // as it was put last
}

// demonstrate sets up a cron feed, a rule with a filter and an action whose
// source can be edited, and shows what happens until ctx ends.
func (a *app) demonstrate(ctx context.Context, r Ready) error {
	// The key of the server that was just started and no other: what the
	// person's own environment or files say is about some other server.
	props := filepath.Join(r.Data, "wskprops")
	only := func(name string) string {
		if name == "WSK_CONFIG_FILE" {
			return props
		}
		return ""
	}
	at, err := client.Discover(client.Settings{Host: r.URL}, only, a.sys.Home, r.Data)
	if err != nil {
		return err
	}
	c, err := a.clientFor(at)
	if err != nil {
		return err
	}
	d := &demo{app: a, c: c, file: tryFile}
	if err := d.setUp(ctx); err != nil {
		return quiet(ctx, err)
	}
	d.tell()
	g, gctx := errgroup.WithContext(ctx)
	// One ends with the other: without its events, or its file, there is no
	// demonstration.
	g.Go(func() error { return d.watch(gctx) })
	g.Go(func() error { return ended(gctx, d.show(gctx)) })
	return quiet(ctx, g.Wait())
}

// quiet drops the errors of calls that ended because ctx did.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// setUp makes everything but the feed, which begins when somebody looks.
// Everything is overwritten, as it may be there from an earlier start, and in
// any state.
func (d *demo) setUp(ctx context.Context) error {
	if err := d.writeFile(); err != nil {
		return err
	}
	if err := d.putAction(ctx); err != nil {
		return err
	}
	trigger := client.Trigger{Annotations: whisk.Params{}.Set("feed", string(quote(tryFeed)))}
	if _, err := d.c.PutTrigger(ctx, own(tryTrigger), trigger, true); err != nil {
		return d.because(err, "Unable to create trigger '%s'", tryTrigger)
	}
	rule := client.RulePut{
		Trigger: own(tryTrigger).String(), Action: own(tryAction).String(),
		Annotations: whisk.Params{}.Set("filter", tryFilter),
	}
	if _, err := d.c.PutRule(ctx, own(tryRule), rule, true); err != nil {
		return d.because(err, "Unable to create rule '%s'", tryRule)
	}
	if err := d.c.SetRule(ctx, own(tryRule), whisk.Active); err != nil {
		return d.because(err, "Unable to enable rule '%s'", tryRule)
	}
	return nil
}

// own is an entity in the key's own namespace.
func own(name string) whisk.Name { return whisk.Name{Namespace: whisk.Own, Entity: name} }

// writeFile writes the action's source, unless it is there.
func (d *demo) writeFile() error {
	fail := func(err error) error {
		return &failure{text: fmt.Sprintf("Cannot create file '%s': %v", d.file, err), exit: exitGeneral, hint: "start millrace in a folder that you may write"}
	}
	if err := os.MkdirAll(filepath.Dir(d.file), 0o755); err != nil {
		return fail(err)
	}
	// Exclusively: what a person has edited is not put back.
	f, err := os.OpenFile(d.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err == nil {
		_, err = f.Write(helloPy)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// putAction makes the action of what the file says now.
func (d *demo) putAction(ctx context.Context) error {
	code, err := readFile(d.file)
	if err != nil {
		return err
	}
	text := string(code)
	act := client.Action{Exec: &client.Exec{Kind: "python:default", Code: &text}}
	if _, err := d.c.PutAction(ctx, own(tryAction), act, true); errors.Is(err, whisk.Invalid) {
		f := *d.failureOf(d.because(err, "Unable to create action '%s'", tryAction))
		f.hint = "the demonstration's action is in Python: install python3, or start Docker with an image for it; 'millrace doctor' looks what is there"
		return &f
	} else if err != nil {
		return d.because(err, "Unable to create action '%s'", tryAction)
	}
	// Only what was put: a save that failed is tried again with the next one,
	// even if it is the same.
	d.code = code
	return nil
}

// tell prints what there is to see and to try.
func (d *demo) tell() {
	// Padded before it is painted: a terminal shows no colours' letters.
	column := func(name string) string { return d.bold(fmt.Sprintf("%-9s", name)) }
	d.print(`
The demonstration, in namespace guest:
  trigger  %s  an event every 2 seconds, from the feed %s
  rule     %s  its filter lets every second event pass
  action   %s  %s: edit and save it, and see

Stop with Ctrl-C. The feed goes on at the next start; 'millrace trigger delete %s' ends it.

`, column(tryTrigger), tryFeed, column(tryRule), column(tryAction), d.bold(d.file), tryTrigger)
}

// show starts the feed once the server would tell us of its first event, and
// prints the events.
func (d *demo) show(ctx context.Context) error {
	open := make(chan struct{})
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ended(gctx, d.follow(gctx, d.c, tryTrigger, func() { close(open) })) })
	g.Go(func() error {
		select {
		case <-open:
			return d.startFeed(gctx)
		case <-gctx.Done():
			return nil
		case <-time.After(listenWait):
			return &failure{text: "the server does not tell of its events", exit: exitGeneral, hint: "'millrace doctor' looks for what is wrong"}
		}
	})
	return g.Wait()
}

// startFeed makes the feed, unless it is there already with our schedule.
func (d *demo) startFeed(ctx context.Context) error {
	feed, err := d.name(tryFeed, whisk.Own)
	if err != nil {
		return err
	}
	t := clientAndName{d.c, own(tryTrigger)}
	got, err := d.tellFeed(ctx, t, feed, feedRead, nil)
	// It goes on from an earlier start, and keeps its place.
	if err == nil && cronOf(got.Body) == tryCron {
		return nil
	}
	if err == nil {
		// With another schedule it is made anew, and begins at the present.
		if _, err := d.tellFeed(ctx, t, feed, feedDelete, nil); err != nil {
			return d.because(err, "Unable to configure feed '%s'", tryFeed)
		}
	}
	_, err = d.tellFeed(ctx, t, feed, feedCreate, whisk.Params{}.Set("cron", string(quote(tryCron))))
	return d.because(err, "Unable to configure feed '%s'", tryFeed)
}

// cronOf returns the schedule in what a feed answered to READ.
func cronOf(record json.RawMessage) string {
	var r struct {
		Response struct {
			Result struct {
				Config struct {
					Cron string `json:"cron"`
				} `json:"config"`
			} `json:"result"`
		} `json:"response"`
	}
	if json.Unmarshal(record, &r) != nil {
		return ""
	}
	return r.Response.Result.Config.Cron
}

// watch puts the action again whenever its file was saved. What is wrong with
// a save is told and does not end it.
func (d *demo) watch(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	seen := d.stamp()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := d.stamp()
		if now == seen || now == (fileStamp{}) { // some editors write by replacing: it is gone for a moment
			continue
		}
		seen = now
		code, err := os.ReadFile(d.file)
		// Saved without a change, or gone again.
		if err != nil || bytes.Equal(code, d.code) {
			continue
		}
		switch err := d.putAction(ctx); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			// Told, and the next save tries again.
			d.exit(err)
		default:
			d.okLine(d.sys.Out, "updated action %s from %s", d.bold(tryAction), d.file)
		}
	}
}

// fileStamp changes when a file is written.
type fileStamp struct {
	at   time.Time
	size int64
}

// stamp is the file as it is now; the zero value when it is not there.
func (d *demo) stamp() fileStamp {
	fi, err := os.Stat(d.file)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{fi.ModTime(), fi.Size()}
}
