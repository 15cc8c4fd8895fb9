package feeds_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/feeds"
	"github.com/millrace/millrace/feeds/cron"
	"github.com/millrace/millrace/feeds/feedtest"
	"github.com/millrace/millrace/internal/whisk"
)

const goodKey = "u:k"

// world is a supervisor over an engine in memory.
type world struct {
	t        *testing.T
	states   *feedtest.Table[feeds.State]
	sink     *feedtest.Sink
	triggers *feedtest.Triggers
	sup      *feeds.Supervisor
	provs    map[string]feeds.Provider
	stop     func()
}

var trig = whisk.Name{Namespace: "guest", Entity: "t"}

func newWorld(t *testing.T, extra map[string]feeds.Provider) *world {
	w := &world{t: t, states: &feedtest.Table[feeds.State]{}, sink: &feedtest.Sink{}, triggers: &feedtest.Triggers{}}
	w.provs = cron.New().Providers()
	for k, p := range extra {
		w.provs[k] = p
	}
	w.triggers.Add(trig, "1")
	w.start()
	return w
}

// start makes a new supervisor on what is stored, as a new process would.
func (w *world) start() {
	w.t.Helper()
	vault, err := feeds.NewVault(make([]byte, feeds.VaultKeySize))
	if err != nil {
		w.t.Fatal(err)
	}
	w.sup = feeds.NewSupervisor(feeds.Parts{
		States: w.states, Sink: w.sink, Triggers: w.triggers, Keys: feedtest.Keys{goodKey: "guest", "o:k": "other"},
		Vault: vault, Providers: w.provs, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.sup.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("run: %v", err)
		}
	}
	<-w.sup.Ready()
}

// act calls a feed action as a client does; extra are members of its body.
func (w *world) act(feed, event, extra string) string {
	w.t.Helper()
	if extra != "" {
		extra = "," + extra
	}
	body := `{"lifecycleEvent":"` + event + `","triggerName":"/_/t","authKey":"` + goodKey + `","apihost":"x"` + extra + `}`
	return w.raw(feed, body)
}

func (w *world) raw(feed, body string) string {
	w.t.Helper()
	res, err := w.sup.Actions()[feed](w.t.Context(), whisk.Invocation{Namespace: "guest"}, json.RawMessage(body))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(res)
}

func (w *world) want(feed, event, extra, want string) {
	w.t.Helper()
	if got := w.act(feed, event, extra); got != want {
		w.t.Errorf("%s %s %s = %s, want %s", feed, event, extra, got, want)
	}
}

func (w *world) read(feed string) (in feeds.Info) {
	w.t.Helper()
	res := w.act(feed, "READ", "")
	if err := json.Unmarshal([]byte(res), &in); err != nil || in.ID == "" {
		w.t.Fatalf("READ = %s (%v)", res, err)
	}
	return in
}

const success = `{"status":"success"}`

func TestAlarmEndToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.want("alarms/alarm", "create", `"cron":"*/2 * * * * *","trigger_payload":{"n":1}`, success)
		time.Sleep(10500 * time.Millisecond)
		evs := w.sink.Events()
		if len(evs) != 5 {
			t.Fatalf("%d events in 10 s, want 5", len(evs))
		}
		ev := evs[0]
		if ev.Trigger != trig || ev.Source != "/whisk.system/alarms/alarm" || ev.Actor != "guest" || string(ev.Payload) != `{"n":1}` {
			t.Errorf("event = %+v", ev)
		}
		in := w.read("alarms/alarm")
		if !in.Status.Active || in.Status.State != feeds.Running || len(in.Status.NextFire) != 5 || *in.Stats.Fired != 5 {
			t.Errorf("READ = %+v", in)
		}
		if string(in.Config["cron"]) != `"*/2 * * * * *"` || string(in.Config["payload"]) != `{"n":1}` || string(in.Config["namespace"]) != `"guest"` || string(in.Config["strict"]) != "false" {
			t.Errorf("config = %v", in.Config)
		}

		// The same again is no change; other parameters keep the place.
		w.want("alarms/alarm", "CREATE", `"cron":"*/2 * * * * *","trigger_payload":{"n":1}`, success)
		w.want("alarms/alarm", "UPDATE", `"trigger_payload":"x"`, success)
		time.Sleep(4 * time.Second)
		if evs = w.sink.Events(); len(evs) != 7 || string(evs[6].Payload) != `{"payload":"x"}` || w.read("alarms/alarm").ID != in.ID {
			t.Errorf("%d events, last %s, feed %s (was %s)", len(evs), evs[len(evs)-1].Payload, w.read("alarms/alarm").ID, in.ID)
		}

		// Paused, over a restart of the server.
		w.want("alarms/alarm", "PAUSE", "", success)
		w.stop()
		time.Sleep(10 * time.Second)
		w.start()
		time.Sleep(10 * time.Second)
		if n := len(w.sink.Events()); n != 7 {
			t.Errorf("%d events while paused", n-7)
		}
		if st := w.read("alarms/alarm").Status; st.Active || st.Reason == nil || st.Reason.Kind != "USER" || st.Reason.Message != "Paused by user" {
			t.Errorf("status = %+v", st)
		}
		w.want("alarms/alarm", "UNPAUSE", "", success)
		synctest.Wait()
		if evs = w.sink.Events(); len(evs) != 8 || !strings.Contains(string(evs[7].Meta), `"missedCount":9`) {
			t.Errorf("%d events, last with %s", len(evs), evs[len(evs)-1].Meta)
		}

		w.want("alarms/alarm", "DELETE", "", success)
		w.want("alarms/alarm", "READ", "", `{"error":{"error":"could not find trigger /guest/t in the database"}}`)
		time.Sleep(10 * time.Second)
		if n := len(w.sink.Events()); n != 8 || w.sink.Cursors() != 0 || len(w.states.List("")) != 0 {
			t.Errorf("after DELETE: %d events, %d positions, %d states", n-8, w.sink.Cursors(), len(w.states.List("")))
		}
		w.stop()
	})
}

func TestUnpauseSkippingBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.stop()
		w.want("alarms/alarm", "CREATE", `"cron":"* * * * *","misfire":"all"`, success)
		w.want("alarms/alarm", "PAUSE", "", success)
		time.Sleep(time.Hour)
		w.want("alarms/alarm", "UNPAUSE", `"skipBacklog":true`, success)
		time.Sleep(61 * time.Second)
		if n := len(w.sink.Events()); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
}

func TestTextsOfAlarms(t *testing.T) {
	tests := []struct{ feed, event, extra, want string }{
		{"alarms/alarm", "CREATE", ``, `alarms trigger feed is missing the cron parameter`},
		{"alarms/alarm", "CREATE", `"cron":""`, `alarms trigger feed is missing the cron parameter`},
		{"alarms/alarm", "CREATE", `"cron":"61 * * * *"`, `cron pattern '61 * * * *' is not valid`},
		{"alarms/alarm", "CREATE", `"cron":"TZ="`, `cron pattern 'TZ=' is not valid`},
		{"alarms/alarm", "CREATE", `"cron":7`, `cron pattern '7' is not valid`},
		{"alarms/alarm", "CREATE", `"cron":"0 0 30 2 *"`, `cron pattern '0 0 30 2 *' is not valid`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","timezone":"Mars"`, `Invalid timezone.`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","timezone":""`, `Invalid timezone.`},
		{"alarms/alarm", "CREATE", `"cron":"TZ=UTC * * * * *","timezone":"Europe/Berlin"`, `Invalid timezone.`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","startDate":"x"`, `startDate parameter 'x' is not a valid Date`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","startDate":"1517245917000"`, `startDate parameter '1517245917000' is not a valid Date`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","startDate":5`, `startDate parameter '5' must be in the future`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","stopDate":"2030-01-01","maxTriggers":3`, `maxTriggers is not allowed when the stopDate parameter is specified`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","stopDate":"?"`, `stopDate parameter '?' is not a valid Date`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","stopDate":"1999-01-01"`, `stopDate parameter '1999-01-01' must be in the future`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","startDate":"2031-01-01","stopDate":"2030-01-01"`, `stopDate parameter '2030-01-01' must be greater than the startDate parameter '2031-01-01'`},
		{"alarms/alarm", "CREATE", `"cron":"0 0 1 1 *","stopDate":"2000-06-01"`, `the first scheduled trigger fire is not until after the stop date`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","jitter":"5m"`, `the alarm feed has no parameter 'jitter'`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","timeZone":"UTC"`, `the alarm feed has no parameter 'timeZone' (did you mean 'timezone'?)`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","misfire":"never"`, `misfire parameter must be one of [skip, latest, all]`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","misfire":"all","misfireMax":0`, `misfireMax parameter must be an integer between 1 and 10000`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","misfireMax":5`, `misfireMax parameter needs misfire: all`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","dst":{"gap":"x"}`, `dst parameter must be an object of gap (runAfter or skip) and overlap (first, second or both)`},
		{"alarms/alarm", "CREATE", `"cron":"* * * * *","trigger_payload":[1]`, `trigger_payload parameter must be an object or a string`},
		{"alarms/once", "CREATE", `"fireOnce":true`, `alarms once trigger feed is missing the date parameter`},
		{"alarms/once", "CREATE", `"date":"soon"`, `date parameter 'soon' is not a valid Date`},
		{"alarms/once", "CREATE", `"date":"1999-01-01"`, `date parameter '1999-01-01' must be in the future`},
		{"alarms/once", "CREATE", `"date":"2030-01-01","deleteAfterFire":"maybe"`, `deleteAfterFire parameter must be one of [false, true, rules].`},
		{"alarms/interval", "CREATE", `"isInterval":true`, `interval trigger feed is missing the minutes parameter`},
		{"alarms/interval", "CREATE", `"minutes":0`, `interval trigger feed is missing the minutes parameter`},
		{"alarms/interval", "CREATE", `"minutes":1.5`, `the minutes parameter must be an integer`},
		{"alarms/interval", "CREATE", `"minutes":"-3"`, `the minutes parameter must be an integer greater than zero`},
		{"alarms/interval", "CREATE", `"minutes":3,"stopDate":"2030-01-01","maxTriggers":1`, `maxTriggers is not supported for the interval trigger feed`},
		{"alarms/alarm", "UPDATE", `"cron":"* * * * *"`, `could not find trigger /guest/t in the database`},
		{"alarms/alarm", "DELETE", ``, `could not find trigger /guest/t in the database`},
		{"alarms/alarm", "PAUSE", ``, `could not find trigger /guest/t in the database`},
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.stop()
		for _, tt := range tests {
			var res struct {
				Error struct {
					Error string `json:"error"`
				} `json:"error"`
			}
			got := w.act(tt.feed, tt.event, tt.extra)
			if err := json.Unmarshal([]byte(got), &res); err != nil || res.Error.Error != tt.want {
				t.Errorf("%s %s {%s} = %s, want %q", tt.feed, tt.event, tt.extra, got, tt.want)
			}
		}
		if n := len(w.states.List("")); n != 0 {
			t.Errorf("%d feeds were made", n)
		}
		bare := map[string]string{
			`{"lifecycleEvent":"EXPLODE","triggerName":"/_/t"}`:                                       `{"error":"unsupported lifecycleEvent"}`,
			`{"triggerName":"/_/t"}`:                                                                  `{"error":"unsupported lifecycleEvent"}`,
			`{"lifecycleEvent":"CREATE"}`:                                                             `{"error":{"error":"no trigger name parameter was provided"}}`,
			`{"lifecycleEvent":"CREATE","triggerName":"t","cron":"* * * * *"}`:                        `{"error":{"error":"Trigger authentication request failed."}}`,
			`{"lifecycleEvent":"CREATE","triggerName":"/guest/t","authKey":"o:k","cron":"@hourly"}`:   `{"error":{"error":"Trigger authentication request failed."}}`,
			`{"lifecycleEvent":"CREATE","triggerName":"/guest/nope","authKey":"u:k","cron":"@daily"}`: `{"error":{"error":"Trigger authentication request failed."}}`,
		}
		for body, want := range bare {
			if got := w.raw("alarms/alarm", body); got != want {
				t.Errorf("%s = %s, want %s", body, got, want)
			}
		}
	})
}

func TestUpdateOfAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.stop()
		w.want("alarms/alarm", "CREATE", `"cron":"0 0 1 1 *","stopDate":"2003-06-01"`, success)
		w.want("alarms/alarm", "UPDATE", `"trigger_payload":"","timezone":"","strict":false`, `{"error":{"error":"no updatable parameters were specified"}}`)
		w.want("alarms/alarm", "UPDATE", `"startDate":"2004-01-01"`, `{"error":{"error":"startDate parameter '2004-01-01' must be less than the stopDate parameter '2003-06-01'"}}`)
		id := w.read("alarms/alarm").ID
		time.Sleep(24 * time.Hour)
		w.want("alarms/alarm", "UPDATE", `"cron":"* * * * *"`, success)
		synctest.Wait()
		if n := len(w.sink.Events()); n != 0 {
			t.Errorf("%d due times of before the change were fired", n)
		}
		if got := w.read("alarms/alarm"); got.ID != id || string(got.Config["stopDate"]) != `"2003-06-01"` {
			t.Errorf("after UPDATE: %+v", got)
		}
	})
}

// What READ shows makes the same feed again.
func TestExportRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.stop()
		w.want("alarms/alarm", "CREATE", `"cron":"@hourly","timezone":"Europe/Berlin","trigger_payload":"x","misfire":"skip"`, success)
		before := w.read("alarms/alarm").Config
		b, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		w.want("alarms/alarm", "DELETE", "", success)
		w.want("alarms/alarm", "CREATE", strings.Trim(string(b), "{}"), success)
		after, err := json.Marshal(w.read("alarms/alarm").Config)
		if err != nil || string(after) != string(b) {
			t.Errorf("config = %s, was %s", after, b)
		}
	})
}

func TestTriggerGone(t *testing.T) {
	ways := map[string]func(w *world){
		"told":          func(w *world) { w.triggers.Remove(trig); w.sup.TriggerGone(trig) },
		"not told":      func(w *world) { w.triggers.Remove(trig); time.Sleep(2 * time.Minute) },
		"made anew":     func(w *world) { w.triggers.Add(trig, "2"); w.sup.TriggerGone(trig) },
		"while stopped": func(w *world) { w.stop(); w.triggers.Remove(trig); w.start() },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.want("alarms/alarm", "CREATE", `"cron":"* * * * *"`, success)
				way(w)
				synctest.Wait()
				if n := len(w.states.List("")); n != 0 {
					t.Errorf("%d feeds are left", n)
				}
				time.Sleep(time.Hour)
				if n := len(w.sink.Events()); n != 0 {
					t.Errorf("%d events on a trigger that is gone", n)
				}
				w.stop()
			})
		})
	}
}

func TestDeleteAfterFire(t *testing.T) {
	for _, dead := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			w.triggers.Dead = dead
			var event string
			w.triggers.Retired = func(_ whisk.Name, ev string, rules bool) {
				if event = ev; !rules {
					t.Error("the rules stay")
				}
			}
			w.want("alarms/once", "CREATE", `"date":"2000-01-01T00:00:05Z","deleteAfterFire":"rules"`, success)
			time.Sleep(10 * time.Second)
			evs := w.sink.Events()
			if len(evs) != 1 {
				t.Fatalf("%d events", len(evs))
			}
			if !dead && (event != evs[0].ID || len(w.states.List("")) != 0) {
				t.Errorf("retired %q, %d feeds left", event, len(w.states.List("")))
			}
			if dead {
				st := w.read("alarms/once").Status
				if st.State != feeds.Finished || !strings.Contains(st.Reason.Message, "was not delivered") {
					t.Errorf("status = %+v", st)
				}
			}
			w.stop()
		})
	}
}

func TestMaxTriggersThenUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.want("alarms/alarm", "CREATE", `"cron":"* * * * * *","maxTriggers":2`, success)
		time.Sleep(5 * time.Second)
		w.stop()
		w.start()
		time.Sleep(5 * time.Second)
		st := w.read("alarms/alarm").Status
		if len(w.sink.Events()) != 2 || st.Active || st.Reason.Message != "Automatically disabled after reaching max triggers" || st.Reason.Kind != "AUTO" {
			t.Errorf("%d events, status %+v", len(w.sink.Events()), st)
		}
		w.want("alarms/alarm", "UPDATE", `"trigger_payload":{"again":true}`, success)
		time.Sleep(5 * time.Second)
		if n := len(w.sink.Events()); n != 4 {
			t.Errorf("%d events after the feed was revived, want 4", n)
		}
		w.stop()
	})
}

func TestFullBusHoldsTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.stop()
		var full atomic.Bool
		full.Store(true)
		w.sink.Fail = func() error {
			if full.Load() {
				return whisk.E(whisk.Unavailable, "accept", errors.New("the store is full"))
			}
			return nil
		}
		w.want("alarms/alarm", "CREATE", `"cron":"* * * * * *","misfire":"all"`, success)
		time.Sleep(30500 * time.Millisecond)
		in := w.read("alarms/alarm")
		if in.Status.State != feeds.Waiting || in.Stats.LastError != "the store is full" || in.Stats.LagMillis < 29_000 {
			t.Errorf("READ = %+v", in)
		}
		full.Store(false)
		time.Sleep(10 * time.Second)
		if n := len(w.sink.Events()); n != 40 {
			t.Errorf("%d events, want all 40", n)
		}
		if st := w.read("alarms/alarm").Status; st.State != feeds.Running {
			t.Errorf("status = %+v", st)
		}
	})
}

// shaky is a provider without any abilities whose feed fails as often as it is
// told to.
type shaky struct {
	fail  atomic.Int64
	opens atomic.Int64
	how   func() error
}

func (p *shaky) Open(_ context.Context, spec feeds.Spec) (feeds.Feed, error) {
	if spec.Params.Get("bad") != nil {
		return nil, feeds.Refuse("bad is bad", "and worse")
	}
	p.opens.Add(1)
	return p, nil
}

func (p *shaky) Run(ctx context.Context, emit feeds.Emit) error {
	if p.fail.Add(-1) >= 0 {
		return p.how()
	}
	if err := emit(ctx, "1", whisk.Event{ID: whisk.NewID(time.Now()), Payload: json.RawMessage("{}")}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func TestFailingFeedIsRestarted(t *testing.T) {
	hows := map[string]func() error{
		"error": func() error { return errors.New("no connection") },
		"panic": func() error { panic("no connection") },
		"nil":   func() error { return nil },
	}
	for name, how := range hows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &shaky{how: how}
				p.fail.Store(5)
				w := newWorld(t, map[string]feeds.Provider{"x/y": p})
				defer w.stop()
				w.want("x/y", "CREATE", `"a":1`, success)
				w.want("x/y", "CREATE", `"bad":1`, `{"error":"bad is bad; and worse"}`)
				time.Sleep(6 * time.Second)
				in, err := w.sup.Get("guest", "t")
				if err != nil || in.Status.State != feeds.Degraded || in.Stats.LastError == "" {
					t.Errorf("Get = %+v, %v", in, err)
				}
				time.Sleep(time.Hour)
				if n := len(w.sink.Events()); n != 1 {
					t.Errorf("%d events", n)
				}
				if all := w.sup.List("guest"); len(all) != 1 || all[0].Status.State != feeds.Running || all[0].Stats.Restarts != 5 {
					t.Errorf("List = %+v", all)
				}
			})
		})
	}
}

func TestConcurrentLifecycle(t *testing.T) {
	w := newWorld(t, nil)
	defer w.stop()
	done := make(chan struct{})
	for i := range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 20 {
				for _, ev := range []string{"CREATE", "PAUSE", "UNPAUSE", "DELETE"}[i%4:] {
					w.act("alarms/alarm", ev, `"cron":"* * * * * *"`)
				}
			}
		}()
	}
	for range 8 {
		<-done
	}
	w.act("alarms/alarm", "DELETE", "")
	if n := len(w.states.List("")); n != 0 {
		t.Errorf("%d feeds are left", n)
	}
}

func TestVault(t *testing.T) {
	if _, err := feeds.NewVault(make([]byte, 16)); !errors.Is(err, whisk.Invalid) {
		t.Errorf("short key: %v", err)
	}
	v, err := feeds.NewVault(make([]byte, feeds.VaultKeySize))
	if err != nil {
		t.Fatal(err)
	}
	box, err := v.Seal([]byte("hush"), "a")
	if err != nil || strings.Contains(string(box), "hush") {
		t.Fatalf("box %q, %v", box, err)
	}
	if plain, err := v.Open(box, "a"); err != nil || string(plain) != "hush" {
		t.Errorf("Open = %q, %v", plain, err)
	}
	for name, try := range map[string]func() ([]byte, error){
		"other context": func() ([]byte, error) { return v.Open(box, "b") },
		"cut":           func() ([]byte, error) { return v.Open(box[:5], "a") },
		"changed":       func() ([]byte, error) { box[len(box)-1] ^= 1; return v.Open(box, "a") },
	} {
		if _, err := try(); !errors.Is(err, whisk.Internal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
