package invoker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/whisk"
	"github.com/millrace/millrace/invoker/launcher"
)

// runner speaks with what runs in a container. It is used by one goroutine at
// a time, save close. An error says that no answer came: errTimeout, errUnsent
// or any other for a lost connection.
type runner interface {
	// ready waits until the other side can be spoken to.
	ready(ctx context.Context) error
	// init loads code. A request too large for one message is sent in parts.
	init(until time.Time, req initRequest) (answer, error)
	// run calls the code that was loaded.
	run(until time.Time, body []byte) (answer, error)
	close()
}

var (
	errTimeout = errors.New("no answer in time")
	// errUnsent says that the other side was gone before it could have seen
	// anything of the request.
	errUnsent = errors.New("the container was gone before it was asked")
)

// statusGone is how a container says that it will not take the request, nor any
// other. OpenWhisk's proxies say so while they shut down.
const statusGone = 503

// initRequest is what /init is given.
type initRequest struct {
	Name   string            `json:"name"`
	Main   string            `json:"main"`
	Code   *string           `json:"code,omitempty"`
	Binary bool              `json:"binary"`
	Env    map[string]string `json:"env,omitempty"`
}

// frameRunner speaks with a launcher of ours.
type frameRunner struct {
	c      Container
	native bool // a program that is no archive is put into a file

	mu   sync.Mutex // close may come at any time
	conn Conn

	in  *launcher.Reader
	out []byte
}

func (f *frameRunner) ready(ctx context.Context) error {
	conn, err := f.c.Dial(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.conn, f.in = conn, launcher.NewReader(conn)
	f.mu.Unlock()
	until, _ := ctx.Deadline()
	if err := f.send(until, launcher.Ping, []byte("ready?")); err != nil {
		return err
	}
	k, _, _, err := f.in.Next(64)
	if err == nil && k != launcher.Ping {
		err = fmt.Errorf("a ping was answered by a frame of kind %q", k)
	}
	return err
}

// send writes one frame. Its error tells whether the other side may have seen
// some of it: only what was not sent at all may be sent to somebody else.
func (f *frameRunner) send(until time.Time, k launcher.Kind, parts ...[]byte) error {
	if err := f.conn.SetDeadline(until); err != nil {
		return errUnsent
	}
	f.out = launcher.AppendFrame(f.out[:0], k, parts...)
	n, err := f.conn.Write(f.out)
	if cap(f.out) > 64<<10 {
		f.out = nil // a large request is no reason to keep its size for ever
	}
	switch {
	case err == nil:
		return nil
	// A deadline that passed with nothing written is no sign of a dead
	// container: it may hang and still read what the pipe holds.
	case n == 0 && !errors.Is(err, os.ErrDeadlineExceeded):
		return errUnsent
	}
	return timedOut(err)
}

// ask sends a request and waits for its answer. After an error the stream may
// be in the middle of a frame, so the container must not be asked again.
func (f *frameRunner) ask(until time.Time, k launcher.Kind, body []byte) (answer, error) {
	if err := f.send(until, k, body); err != nil {
		return answer{}, err
	}
	// Two bytes of status come before the body. What is too long is read to
	// its end, so that the next answer can be found.
	k, b, size, err := f.in.Next(whisk.MaxPayload + 2)
	if err != nil {
		return answer{}, timedOut(err)
	}
	if k != launcher.Answer || size < 2 {
		return answer{}, fmt.Errorf("frame of kind %q and %d bytes in the place of an answer", k, size)
	}
	a := answer{status: int(b[0])<<8 | int(b[1]), body: b[2:], size: size - 2}
	if a.status == statusGone {
		return answer{}, errUnsent
	}
	return a, nil
}

func (f *frameRunner) init(until time.Time, req initRequest) (answer, error) {
	if req.Code != nil && (req.Binary || f.native) {
		// Archives are unpacked here, once and safely, not by each launcher.
		err := unpack(*req.Code, req.Binary, func(h launcher.FileHeader, content []byte) error {
			head, err := json.Marshal(h)
			if err != nil {
				return err
			}
			return f.send(until, launcher.File, head, []byte{'\n'}, content)
		})
		// A fault of the code is answered as a container would have: what
		// follows need not know who found it. The files sent so far do no
		// harm, as the container is dropped.
		var bad codeError
		if errors.As(err, &bad) {
			body := errorResult(quote(textInit + ": " + bad.Error()))
			return answer{status: 502, body: body, size: len(body)}, nil
		}
		if err != nil {
			return answer{}, err
		}
		req.Code = nil
	}
	body, err := json.Marshal(req)
	if err != nil {
		return answer{}, err
	}
	return f.ask(until, launcher.Init, body)
}

func (f *frameRunner) run(until time.Time, body []byte) (answer, error) {
	return f.ask(until, launcher.Run, body)
}

func (f *frameRunner) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil {
		f.conn.Close()
	}
}

// timedOut gives the deadline's error our name and leaves others alone.
func timedOut(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errTimeout
	}
	return err
}
