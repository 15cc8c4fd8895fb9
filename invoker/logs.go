package invoker

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Texts in the logs of activations, as OpenWhisk words them.
const (
	sentinel         = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
	textLogsCut      = "Logs were truncated because the total bytes size exceeds the limit of %d bytes."
	textLogsMissing  = "There was an issue while collecting your logs. Data might be missing."
	textLogsDevError = "The action did not initialize or run as expected. Log data might be missing."
)

const (
	logTime   = "2006-01-02T15:04:05.000000000Z"
	maxLine   = 64 << 10 // longer lines are split
	maxBefore = 64 << 10 // bytes kept of what is written between activations
	maxDrain  = 1 << 20  // bytes read at once: no pipe holds more unless it is told to
)

// logbook collects what a container writes, into the activation that it is
// open for. What comes while it is closed belongs to the next one.
type logbook struct {
	// Pipes and files never change. The goroutines that read, and those that
	// take, share what is under mu.
	pipes [2]syscall.RawConn // nil for streams, which mark the end of an activation themselves
	files [2]io.ReadCloser
	wait  sync.WaitGroup

	mu      sync.Mutex
	streams [2]lineBuffer
	lines   []string
	size    int // of lines
	limit   int // bytes; -1: closed
	cut     bool
	ends    [2]int        // end marks seen and not yet waited for
	changed chan struct{} // closed when a stream has moved; for streams only
	scratch []byte
}

type lineBuffer struct {
	name string
	part []byte // of a line whose end has not come
}

// newLogbook begins to read stdout and stderr.
func newLogbook(stdout, stderr io.ReadCloser) *logbook {
	l := &logbook{
		files: [2]io.ReadCloser{stdout, stderr}, limit: -1, changed: make(chan struct{}),
		streams: [2]lineBuffer{{name: "stdout"}, {name: "stderr"}},
	}
	for i, f := range l.files {
		if p, ok := f.(syscall.Conn); ok {
			if raw, err := p.SyscallConn(); err == nil {
				l.pipes[i] = raw
			}
		}
		l.wait.Go(func() { l.follow(i) })
	}
	return l
}

// close stops reading. Whoever reads wakes with an error, and close returns
// when they have left.
func (l *logbook) close() {
	for _, f := range l.files {
		f.Close()
	}
	l.wait.Wait()
}

// follow reads stream i to its end, so that its writer never blocks for long.
func (l *logbook) follow(i int) {
	// The runtime's poller calls the function when there is something to read.
	// As it reads under the lock, take can empty the pipe itself: nothing is
	// ever between the pipe and the lines, where take would miss it.
	if raw := l.pipes[i]; raw != nil {
		for ended := false; !ended; {
			err := raw.Read(func(fd uintptr) bool {
				l.mu.Lock()
				defer l.mu.Unlock()
				var dry bool
				dry, ended = l.readAll(i, int(fd))
				return !dry || ended
			})
			ended = ended || err != nil
		}
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := l.files[i].Read(buf)
		l.mu.Lock()
		l.add(i, buf[:n])
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// readAll takes what is in the pipe and reports whether that was all, and
// whether its end was reached. Of a pipe that somebody keeps filling it takes
// what was there at first, and then some.
func (l *logbook) readAll(i, fd int) (dry, ended bool) {
	// One buffer for both streams, as whoever reads holds mu.
	if l.scratch == nil {
		l.scratch = make([]byte, 32<<10)
	}
	for taken := 0; taken < maxDrain; {
		n, err := syscall.Read(fd, l.scratch)
		switch {
		case n > 0:
			l.add(i, l.scratch[:n])
			taken += n
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return true, false
		default:
			return true, true
		}
	}
	return false, false
}

// open begins an activation that may keep limit bytes of lines; 0 for none.
// Forget drops what came before.
func (l *logbook) open(limit int, forget bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if forget {
		l.drainPipes()
		l.lines, l.size = nil, 0
		l.streams[0].part, l.streams[1].part = nil, nil
	}
	l.limit, l.cut, l.ends = limit, false, [2]int{}
	if limit == 0 {
		l.lines, l.size = nil, 0
	}
}

// take ends the activation and returns its lines. It is called once the answer
// is there: all that was written before is in the pipes.
func (l *logbook) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drainPipes()
	return l.finish()
}

// drainPipes reads what the pipes hold at this moment. The caller holds mu.
func (l *logbook) drainPipes() {
	for i, raw := range l.pipes {
		if raw != nil {
			_ = raw.Control(func(fd uintptr) { l.readAll(i, int(fd)) }) // a closed pipe has nothing
		}
	}
}

// takeMarked is take for streams: it waits until both have shown the end mark.
// Without marks it waits until they are quiet.
func (l *logbook) takeMarked(marked bool) (lines []string, complete bool) {
	quiet, longest := logsQuiet, time.Now().Add(logsLongest)
	if !marked {
		// Nobody says where the output ends, so every activation would wait in
		// vain for as long as the marks may take.
		quiet, longest = 10*time.Millisecond, time.Now().Add(100*time.Millisecond)
	}
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	l.mu.Lock()
	for {
		if l.ends[0] > 0 && l.ends[1] > 0 || time.Now().After(longest) {
			break
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
			// A stream that moves is still being delivered: the time for
			// silence begins anew, the longest time does not.
			timer.Reset(quiet)
			l.mu.Lock()
			continue
		case <-timer.C:
		}
		l.mu.Lock()
		break
	}
	defer l.mu.Unlock()
	complete = !marked || l.ends[0] > 0 && l.ends[1] > 0
	return l.finish(), complete
}

// finish closes the activation. A line without an end counts as one: what the
// action wrote last must not turn up in the next record. The caller holds mu.
func (l *logbook) finish() []string {
	now := time.Now()
	for i := range l.streams {
		if s := &l.streams[i]; len(s.part) > 0 {
			l.line(s.name, s.part, now)
			s.part = nil
		}
	}
	lines := l.lines
	l.lines, l.size, l.limit = nil, 0, -1
	return lines
}

// add splits data of stream i into lines. Data is only valid during the call.
// The caller holds mu.
func (l *logbook) add(i int, data []byte) {
	s := &l.streams[i]
	now := time.Now()
	for len(data) > 0 {
		at := bytes.IndexByte(data, '\n')
		room := maxLine - len(s.part)
		switch {
		case at >= 0 && at <= room:
			l.whole(i, append(s.part, data[:at]...), now)
			s.part = s.part[:0]
			data = data[at+1:]
		case len(data) <= room: // one that just fits may end here
			s.part = append(s.part, data...)
			return
		default:
			l.line(s.name, append(s.part, data[:room]...), now)
			s.part = s.part[:0]
			data = data[room:]
		}
	}
}

// whole takes a finished line and looks for the end mark, which stands at the
// end of the line if the action's own last line had none.
func (l *logbook) whole(i int, text []byte, now time.Time) {
	text = bytes.TrimSuffix(text, []byte{'\r'})
	if l.pipes[i] == nil && bytes.HasSuffix(text, []byte(sentinel)) {
		l.ends[i]++
		if text = text[:len(text)-len(sentinel)]; len(text) == 0 {
			return
		}
	}
	l.line(l.streams[i].name, text, now)
}

// line keeps one line, as long as there is room. Lines count with their time:
// a million empty ones are not free.
func (l *logbook) line(stream string, text []byte, now time.Time) {
	limit := l.limit
	if limit < 0 {
		limit = maxBefore
	}
	if limit == 0 || l.cut {
		return
	}
	const head = len(logTime) + len(" stdout: ")
	if room := limit - l.size - head; len(text) > room {
		// Between activations, what is too much is left out without a word: a
		// text about it would stand first in somebody's record.
		if l.limit < 0 {
			return
		}
		l.cut = true
		if room > 0 {
			l.keep(stream, text[:room], now)
		}
		// Beyond the limit, which is used up by then.
		l.keep("stderr", fmt.Appendf(nil, textLogsCut, limit), now)
		return
	}
	l.keep(stream, text, now)
}

func (l *logbook) keep(stream string, text []byte, now time.Time) {
	s := logLine(stream, text, now)
	l.lines = append(l.lines, s)
	l.size += len(s)
}

// logLine is a line as records have it: time, stream, text.
func logLine(stream string, text []byte, now time.Time) string {
	var b strings.Builder
	b.Grow(len(logTime) + len(stream) + len(text) + 3)
	var at [len(logTime)]byte
	b.Write(now.UTC().AppendFormat(at[:0], logTime))
	b.WriteByte(' ')
	b.WriteString(stream)
	b.WriteString(": ")
	b.Write(bytes.ToValidUTF8(text, []byte("\ufffd")))
	return b.String()
}
