package servertest_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/millrace/millrace/invoker"
	"github.com/millrace/millrace/invoker/docker"
	"github.com/millrace/millrace/invoker/launcher"
)

// directFrame measures what a warm call is held against: one frame to the
// launcher in a container and its answer, with nothing around it.
func directFrame(b *testing.B) load {
	b.Helper()
	d, err := docker.New(b.Context(), docker.Options{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	c, err := d.Create(b.Context(), invoker.Spec{Kind: "python:3", Image: "millrace-test/python:3", Launcher: "python", Memory: 256})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Remove(b.Context())
	conn, err := c.Dial(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		b.Fatal(err)
	}
	in, out := launcher.NewReader(conn), []byte(nil)
	ask := func(k launcher.Kind, body []byte) error {
		out = launcher.AppendFrame(out[:0], k, body)
		if _, err := conn.Write(out); err != nil {
			return err
		}
		k, answer, _, err := in.Next(1 << 20)
		if err == nil && (k != launcher.Answer || len(answer) < 2 || int(answer[0])<<8|int(answer[1]) != 200) {
			err = fmt.Errorf("the answer is a frame of kind %q, %q", k, answer)
		}
		return err
	}
	code, err := json.Marshal(map[string]any{"name": "noop", "main": "main", "code": noop, "binary": false})
	if err != nil {
		b.Fatal(err)
	}
	if err := ask(launcher.Init, code); err != nil {
		b.Fatal(err)
	}
	run := []byte(`{"value":{}}`)
	return drive(b, 1, func() error { return ask(launcher.Run, run) })
}
