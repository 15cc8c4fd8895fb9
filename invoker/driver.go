package invoker

import (
	"context"
	"io"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// Driver makes containers: isolated places in which a launcher of ours or the
// server of a stock image runs. It is what differs between Docker, processes
// and the fake of the tests; /init and /run do not. Its methods are safe for
// concurrent use.
type Driver interface {
	// Create starts a container and returns at once: whoever dials learns
	// whether it answers. An error of kind whisk.Invalid is the fault of the
	// action (its image cannot be pulled) and its text becomes the result;
	// any other error is ours.
	Create(ctx context.Context, spec Spec) (Container, error)
	// Sweep removes what containers of dead processes left behind and returns
	// how many there were. It runs once, before the first Create, and leaves
	// alone what a process that still lives has made.
	Sweep(ctx context.Context) (removed int, err error)
	// Offers returns nil if containers of this runtime can be made here, else
	// why not, in a few words for a person. It may take as long as a start, or
	// the download of an image, and ends with ctx.
	Offers(ctx context.Context, r whisk.Runtime) error
	// Describe returns the driver's name and, in a few words, how far its
	// containers are kept apart from the machine and each other.
	Describe() (name, isolation string)
}

// Spec says what container to make.
type Spec struct {
	Kind     string            // of the action, as in "python:3" or "blackbox"
	Image    string            // to run; drivers without images ignore it
	Launcher string            // the launcher to start in it; empty: the image serves /init and /run itself
	Marked   bool              // the image prints OpenWhisk's end marks after each activation
	Memory   int               // MiB
	Env      map[string]string // of the container: __OW_API_HOST
	Owner    string            // whose action it is for, to be read by people; empty for a stem cell
}

// Conn is a stream to what runs in a container. Deadlines are as those of
// net.Conn.
type Conn interface {
	io.ReadWriteCloser
	SetDeadline(t time.Time) error
}

// Container is one made by a Driver. Its methods are safe for concurrent use.
type Container interface {
	// ID is what people know it by.
	ID() string
	// Dial connects: to the launcher for frames (once in its life), or to
	// port 8080 of a stock image (as often as wanted).
	Dial(ctx context.Context) (Conn, error)
	// Logs returns what the container writes, and is called once. Of a
	// launcher they are the reading ends of pipes that do not block
	// (syscall.Conn), so that what was written before an answer can be had at
	// once; of an image they are streams.
	Logs() (stdout, stderr io.ReadCloser)
	// Pause stops all its processes until Resume.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	// Done is closed when its main process has ended, for whatever reason.
	Done() <-chan struct{}
	// Ending says how it ended. It waits a moment for that to be known if the
	// end is not yet noticed, at most until ctx ends.
	Ending(ctx context.Context) Ending
	// Remove kills all its processes and forgets it, files included. A second
	// call returns what the first one did.
	Remove(ctx context.Context) error
}

// Ending is how a container came to its end.
type Ending struct {
	OutOfMemory bool
	ExitCode    int // 128 and the signal's number if it was killed; -1 if not known
}
