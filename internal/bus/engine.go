package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"github.com/millrace/millrace/internal/whisk"
)

// maxMessage is the largest message in bytes, headers included. What may be
// larger goes to the objects.
const maxMessage = 8 << 20

// startWait is how long the server may take to open its store: 0.7 s per GB
// after an unclean stop, warm.
const startWait = 10 * time.Minute

// startServer starts the embedded server without any listener and connects to
// it in process.
func (b *Bus) startServer() error {
	srv, err := server.NewServer(&server.Options{
		ServerName: "millrace",
		DontListen: true,
		NoSigs:     true,
		MaxPayload: maxMessage,
		MaxPending: 256 << 20,
		JetStream:  true,
		StoreDir:   b.o.Dir,
		// Explicit: the server refuses streams larger than what it makes of the
		// disk by itself. The limits that count are those of the streams.
		JetStreamMaxStore:  math.MaxInt64 / 4,
		JetStreamMaxMemory: 64 << 20,
		SyncInterval:       b.o.SyncInterval,
	})
	if err != nil {
		return fmt.Errorf("set up the embedded NATS server: %w", err)
	}
	// Before Start: the recovery of the store is where it has most to say.
	srv.SetLoggerV2(engineLog{b.o.Log, func(text string) { b.fail(writeFailure(b.o.Dir, text)) }}, false, false, false)
	b.srv = srv
	srv.Start()
	if !srv.ReadyForConnections(startWait) {
		return errors.New("the embedded NATS server did not start")
	}
	if !srv.JetStreamEnabled() {
		return fmt.Errorf("the embedded NATS server could not open its store in %s", b.o.Dir)
	}
	// No buffer for reconnecting: what is published while there is no
	// connection must fail at once, not be sent later.
	b.nc, err = nats.Connect("", nats.InProcessServer(srv), nats.Name("bus"), nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.o.Log.Warn("bus connection", slog.Any("err", err))
		}))
	if err != nil {
		return fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(30*time.Second))
	return err
}

// engineLog passes the server's own log on. What it notices is for developers.
// An error of writing goes to fail: the server refuses from then on, in part
// without an answer, until it is started again.
type engineLog struct {
	log  *slog.Logger
	fail func(text string)
}

// writeFailure is the error of a store that can't be written, with the remedy.
// text is how the server tells it.
func writeFailure(dir, text string) error {
	const again = "then start the server again: what was accepted is kept"
	if strings.Contains(text, unix.ENOSPC.Error()) || strings.Contains(text, "out of space") {
		return whisk.WithHint(whisk.E(whisk.Unavailable, "", fmt.Errorf("the disk of the store in %s is full", dir)),
			"free some space on that disk, "+again)
	}
	return whisk.WithHint(whisk.E(whisk.Unavailable, "", fmt.Errorf("the store in %s can't be written: %s", dir, text)),
		"see in the system's log what is wrong with its disk, "+again)
}

// writeErrors are how the server, of the version that go.mod pins, says that it
// writes no more. Where it says nothing, an answer that does not come tells.
var writeErrors = [...]string{"critical write error", "will be disabled", "disabling jetstream"}

// say logs a line of the server, and fails the bus when it tells of the end.
func (l engineLog) say(level slog.Level, format string, v []any) {
	text := fmt.Sprintf(format, v...)
	l.log.Log(context.Background(), level, "engine", slog.String("text", text))
	low := strings.ToLower(text)
	for _, e := range writeErrors {
		if strings.Contains(low, e) {
			l.fail(text)
			return
		}
	}
}

func (l engineLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }
func (l engineLog) Warnf(format string, v ...any)   { l.say(slog.LevelInfo, format, v) }
func (l engineLog) Errorf(format string, v ...any)  { l.say(slog.LevelError, format, v) }
func (l engineLog) Debugf(string, ...any)           {}
func (l engineLog) Tracef(string, ...any)           {}
func (l engineLog) Fatalf(format string, v ...any) {
	l.say(slog.LevelError, format, v)
	l.fail(fmt.Sprintf(format, v...))
}
