package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace/millrace/internal/client"
	"github.com/millrace/millrace/internal/whisk"
)

// checkWait bounds each check that waits for somebody's answer.
const checkWait = 5 * time.Second

// check is what doctor found of one thing. A remedy is what a person can do as
// it stands, with the command to type.
type check struct {
	Name   string `json:"name"`
	Result result `json:"result"`
	Detail string `json:"detail"`           // what was found
	Remedy string `json:"remedy,omitempty"` // what to do, where it is not fine
}

// result is how a check ended. Only failed makes the exit code one.
type result string

const (
	fine    result = "ok"
	lacking result = "warning" // works without, but less well
	failed  result = "failed"
)

// doctorCommand is the command that looks for what keeps Millrace from working
// here. It changes nothing, on this machine or on the server.
func (a *app) doctorCommand() *cobra.Command {
	return a.verb(verb{
		use: "doctor", short: "check the server, the key and this machine, and tell the remedy of what fails", need: "No arguments are required.",
		run: func(ctx context.Context, _ []string) error {
			list := a.examine(ctx)
			bad := 0
			for _, c := range list {
				if c.Result == failed {
					bad++
				}
			}
			if a.json() {
				if err := a.printJSON(list); err != nil {
					return err
				}
			} else {
				a.printChecks(list)
			}
			if bad > 0 {
				// The list has told it.
				return &failure{exit: exitGeneral, told: true}
			}
			return nil
		},
	})
}

// printChecks prints a line for each check, and the remedy under it.
func (a *app) printChecks(list []check) {
	colours := map[result]string{fine: green, lacking: yellow, failed: red}
	for _, c := range list {
		a.print("%s  %-14s %s\n", a.paint(colours[c.Result], fmt.Sprintf("%-7s", c.Result)), c.Name, c.Detail)
		if c.Remedy != "" {
			a.print("         hint: %s\n", c.Remedy)
		}
	}
}

// examine makes every check. Those that need a server are left out without one.
// The machine comes first: what a server lacks often follows from it.
func (a *app) examine(ctx context.Context) []check {
	list := []check{a.checkData()}
	docker := a.checkDocker(ctx)
	list = append(list, docker)
	list = append(list, checkInterpreters(docker.Result != fine)...)
	list = append(list, checkNamespaces())

	// From here on it is about the server. What is wrong with the settings
	// makes the rest meaningless.
	at, err := a.endpoint()
	if err != nil {
		return append(list, broken("settings", err))
	}
	c, err := a.clientFor(at)
	if err != nil {
		return append(list, broken("settings", err))
	}
	key := check{"key", fine, "found in " + at.AuthFrom, ""}
	if at.Auth == "" {
		key = check{
			"key", failed, "no key was found: neither --auth, WHISK_AUTH nor " + strings.Join(client.Files(a.sys.getenv, a.sys.Home, a.defaultData()), " nor "),
			"start a server with 'millrace dev', which leaves a key in its data folder, or give one with 'millrace property set --auth'",
		}
	}
	list = append(list, key)
	up := checkServer(ctx, c, at)
	list = append(list, up)
	if up.Result != failed && at.Auth != "" {
		list = append(list, checkKey(ctx, c, at), checkKinds(ctx, c), checkFeeds(ctx, c))
	}
	return list
}

// broken is a check that failed with err.
func broken(name string, err error) check {
	return check{name, failed, err.Error(), whisk.HintOf(err)}
}

// checkServer asks the server what it is, and whether it is ready.
func checkServer(ctx context.Context, c *client.Client, at client.Endpoint) check {
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	where := fmt.Sprintf("%s (from %s)", at.Host, at.HostFrom)
	info, err := c.Info(ctx)
	// A server that is starting answers with 503, which is not the same as
	// none.
	var answer *client.Failure
	if errors.As(err, &answer) && answer.Status == http.StatusServiceUnavailable {
		return check{"server", failed, where + " is not ready: " + answer.Message, "wait for its start to end; it tells on its own terminal or log what it waits for"}
	}
	if err != nil {
		return broken("server", err)
	}
	detail := where + " is " + info.Description
	if info.Build != "" {
		detail += ", build " + info.Build
	}
	if err := c.Ready(ctx); err != nil {
		return check{"server", lacking, detail + "; not ready: " + err.Error(), "wait for its start to end; it tells on its own terminal or log what it waits for"}
	}
	return check{"server", fine, detail, ""}
}

// checkKey asks the server whom it takes the key for.
func checkKey(ctx context.Context, c *client.Client, at client.Endpoint) check {
	list, err := c.Namespaces(ctx)
	if err != nil {
		return broken("key accepted", err)
	}
	return check{"key accepted", fine, "for namespace " + strings.Join(list, ", "), ""}
}

// checkKinds asks which kinds of actions the server can run. Without Python it
// still works, but a newcomer's first step, the demonstration, does not.
func checkKinds(ctx context.Context, c *client.Client) check {
	kinds, err := c.Kinds(ctx)
	if err != nil {
		return broken("kinds", err)
	}
	var all []string
	for _, list := range kinds {
		all = append(all, list...)
	}
	slices.Sort(all)
	const lacks = "the lines at the server's start say which images or interpreters it lacks"
	if len(all) == 0 {
		return check{"kinds", failed, "the server offers no kind of action", lacks}
	}
	if len(kinds["python"]) == 0 {
		return check{"kinds", lacking, strings.Join(all, ", ") + ", and none of Python, which 'millrace try' is written in", lacks}
	}
	return check{"kinds", fine, strings.Join(all, ", "), ""}
}

// checkFeeds looks for feeds that fail just now.
func checkFeeds(ctx context.Context, c *client.Client) check {
	list, err := c.Feeds(ctx)
	if err != nil {
		return broken("feeds", err)
	}
	var ill []string
	for _, f := range list {
		if f.Stats.Failures > 0 {
			ill = append(ill, f.Trigger)
		}
	}
	if len(ill) > 0 {
		return check{"feeds", lacking, fmt.Sprintf("%d of %d fail: %s", len(ill), len(list), strings.Join(ill, ", ")), "'millrace feed status TRIGGER' tells the last error"}
	}
	return check{"feeds", fine, fmt.Sprintf("%d, none of them fails", len(list)), ""}
}

// checkData looks whether a server could keep its data where it would.
func (a *app) checkData() check {
	dir := a.defaultData()
	if d := a.sys.getenv("MILLRACE_DATA"); d != "" {
		dir = d
	}
	// As the server would take it: from the folder that it is started in.
	if !filepath.IsAbs(dir) {
		if abs, err := filepath.Abs(dir); err == nil {
			dir = abs
		}
	}
	remedy := "make it writable for this user, or name another with --data or MILLRACE_DATA"
	at := dir
	fi, err := os.Stat(at)
	for errors.Is(err, os.ErrNotExist) && at != filepath.Dir(at) { // it would be made in the nearest folder above
		at = filepath.Dir(at)
		fi, err = os.Stat(at)
	}
	switch {
	case err != nil:
		return check{"data folder", failed, err.Error(), remedy}
	case !fi.IsDir():
		return check{"data folder", failed, at + " is not a folder", remedy}
	}
	// The permissions alone do not tell: the disk may be read-only, or full.
	probe, err := os.CreateTemp(at, ".millrace-doctor-*")
	if err != nil {
		return check{"data folder", failed, fmt.Sprintf("%s can't be written: %v", at, err), remedy}
	}
	_ = probe.Close()
	_ = os.Remove(probe.Name())
	// Only a folder that is there already can hold the file.
	if at == dir {
		// The file holds the guest's key.
		if props, err := os.Stat(filepath.Join(dir, "wskprops")); err == nil && props.Mode().Perm()&0o077 != 0 {
			return check{"data folder", lacking, filepath.Join(dir, "wskprops") + " can be read by other users", "chmod 600 " + filepath.Join(dir, "wskprops")}
		}
	}
	free, err := freeBytes(at)
	if err != nil {
		return check{"data folder", fine, dir, ""}
	}
	detail := fmt.Sprintf("%s, %d MiB free", dir, free>>20)
	if free < minFree {
		return check{"data folder", lacking, detail, "free some space: the server refuses events when its disk is nearly full"}
	}
	return check{"data folder", fine, detail, ""}
}

// minFree is how many bytes of disk make doctor warn.
const minFree = 2 << 30

// checkDocker asks the Docker daemon whether it is there.
func (a *app) checkDocker(ctx context.Context) check {
	host := a.sys.getenv("DOCKER_HOST")
	if host == "" {
		host = "unix:///var/run/docker.sock"
	}
	remedy := "install and start Docker and let this user use its socket, or run actions as processes with --driver process"
	network, addr, ok := strings.Cut(host, "://")
	// By ssh, say: to reach it takes more than a look.
	if !ok || network != "unix" && network != "tcp" {
		return check{"docker", lacking, "not looked at: DOCKER_HOST is " + host, ""}
	}
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	hc := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
	if err != nil {
		return check{"docker", lacking, err.Error(), remedy}
	}
	resp, err := hc.Do(req)
	if err != nil {
		return check{"docker", lacking, fmt.Sprintf("no answer at %s: %v", host, errors.Unwrap(err)), remedy}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return check{"docker", lacking, fmt.Sprintf("%s answers %s", host, resp.Status), remedy}
	}
	return check{"docker", fine, fmt.Sprintf("answers at %s, API %s", host, resp.Header.Get("Api-Version")), ""}
}

// checkInterpreters looks for what the process driver runs actions with.
// Without Docker there must be one.
func checkInterpreters(needed bool) []check {
	var list []check
	found := 0
	for _, p := range []struct{ program, kind string }{{"python3", "python:3"}, {"node", "nodejs:20"}} {
		path, err := exec.LookPath(p.program)
		if err != nil {
			list = append(list, check{p.program, lacking, "not on the PATH: the process driver will not offer " + p.kind, "install " + p.program + ", or use the Docker driver"})
			continue
		}
		found++
		list = append(list, check{p.program, fine, path, ""})
	}
	if needed && found == 0 {
		list = append(list, check{"languages", failed, "neither Docker nor an interpreter: only native actions could run", "install python3 or Docker"})
	}
	return list
}

// checkNamespaces tells whether the kernel lets this user isolate processes.
func checkNamespaces() check {
	// Debian's own switch, and the kernel's limit. For root they are not
	// looked at.
	for _, f := range []string{"/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces"} {
		b, err := os.ReadFile(f)
		if err == nil && strings.TrimSpace(string(b)) == "0" && os.Geteuid() != 0 {
			return check{"isolation", lacking, "the kernel lets this user make no namespaces (" + f + " is 0): the process driver runs actions unsandboxed", "use the Docker driver, or set " + f + " as root"}
		}
	}
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		return check{"isolation", lacking, "this system has no user namespaces: the process driver runs actions unsandboxed", "use the Docker driver"}
	}
	return check{"isolation", fine, "user namespaces are there for the process driver", ""}
}
