package invoker

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipeBook returns a logbook over pipes and their writing ends.
func pipeBook(t *testing.T) (*logbook, [2]*os.File) {
	t.Helper()
	var r, w [2]*os.File
	for i := range r {
		var err error
		if r[i], w[i], err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
	}
	l := newLogbook(r[0], r[1])
	t.Cleanup(func() {
		l.close()
		w[0].Close()
		w[1].Close()
	})
	return l, w
}

func texts(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = l[31:]
	}
	return out
}

func TestLogsOfPipes(t *testing.T) {
	l, w := pipeBook(t)
	io.WriteString(w[0], "of the start\n")
	l.open(1000, true)
	io.WriteString(w[0], "one\r\ntwo\n\nthr")
	io.WriteString(w[0], "ee\nend")
	io.WriteString(w[1], "bad \xff\n")
	got := texts(l.take())
	slices.Sort(got)
	if want := []string{"stderr: bad \ufffd", "stdout: ", "stdout: end", "stdout: one", "stdout: three", "stdout: two"}; !slices.Equal(got, want) {
		t.Errorf("lines = %q, want %q", got, want)
	}
	io.WriteString(w[0], "between\n"+sentinel+"\n")
	l.open(1000, false)
	if got, want := texts(l.take()), []string{"stdout: between", "stdout: " + sentinel}; !slices.Equal(got, want) {
		t.Errorf("lines = %q, want %q", got, want)
	}
	l.open(0, false)
	io.WriteString(w[0], "nobody wants it\n")
	if got := l.take(); got != nil {
		t.Errorf("lines without room = %q", got)
	}
}

func TestLogLimit(t *testing.T) {
	l, w := pipeBook(t)
	l.open(1000, true)
	for i := range 10_000 {
		fmt.Fprintln(w[0], i)
	}
	lines := l.take()
	size := 0
	for _, s := range lines[:len(lines)-1] {
		size += len(s)
	}
	if want := "stderr: Logs were truncated because the total bytes size exceeds the limit of 1000 bytes."; size > 1000 || texts(lines)[len(lines)-1] != want {
		t.Errorf("%d bytes, then %q", size, lines[len(lines)-1])
	}
	l.open(1000, false)
	fmt.Fprintln(w[0], "more")
	if got, want := texts(l.take()), []string{"stdout: more"}; !slices.Equal(got, want) {
		t.Errorf("lines of the next = %q, want %q", got, want)
	}
	// What is written while nobody runs is kept within bounds: ours, and the
	// pipe's own.
	for range 100 {
		fmt.Fprintln(w[0], strings.Repeat("x", 4000))
	}
	l.open(10<<20, false)
	if n := len(l.take()); n == 0 || n > 2*maxBefore/4000 {
		t.Errorf("%d lines of between", n)
	}
}

func TestLongLinesAreSplit(t *testing.T) {
	l, w := pipeBook(t)
	l.open(1<<20, true)
	fmt.Fprintln(w[0], strings.Repeat("x", 2*maxLine+5))
	fmt.Fprintln(w[0], strings.Repeat("y", maxLine))
	var sizes []int
	for _, s := range texts(l.take()) {
		sizes = append(sizes, len(s)-len("stdout: "))
	}
	if want := []int{maxLine, maxLine, 5, maxLine}; !slices.Equal(sizes, want) {
		t.Errorf("lengths = %v, want %v", sizes, want)
	}
}

// A line may come in pieces, the end of it alone.
func TestLineThatFitsExactlyIsOne(t *testing.T) {
	l, _ := pipeBook(t)
	l.open(1<<20, true)
	l.mu.Lock()
	l.add(0, bytes.Repeat([]byte("x"), maxLine))
	l.add(0, []byte("\n"))
	l.mu.Unlock()
	if got := len(l.take()); got != 1 {
		t.Errorf("%d lines, want 1", got)
	}
}

func TestLogsOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outR, outW := io.Pipe()
		errR, errW := io.Pipe()
		l := newLogbook(outR, errR)
		l.open(1000, true)
		io.WriteString(outW, "a\nno end"+sentinel+"\n")
		go func() {
			time.Sleep(time.Second)
			io.WriteString(errW, "late\n"+sentinel+"\n")
		}()
		lines, complete := l.takeMarked(true)
		if got, want := texts(lines), []string{"stdout: a", "stdout: no end", "stderr: late"}; !slices.Equal(got, want) || !complete {
			t.Errorf("lines = %q, %v, want %q", got, complete, want)
		}
		l.open(1000, false)
		io.WriteString(outW, sentinel+"\n")
		began := time.Now()
		if _, complete = l.takeMarked(true); complete || time.Since(began) != logsQuiet {
			t.Errorf("with one mark of two: complete %v after %v", complete, time.Since(began))
		}
		l.open(1000, false)
		io.WriteString(outW, "b\n")
		began = time.Now()
		lines, complete = l.takeMarked(false)
		if got := texts(lines); !slices.Equal(got, []string{"stdout: b"}) || !complete || time.Since(began) > 100*time.Millisecond {
			t.Errorf("without marks: %q, %v after %v", got, complete, time.Since(began))
		}
		outW.Close()
		errW.Close()
		l.close()
	})
}

// Of a pipe that is never empty an activation gets its share, and an end.
func TestLogsOfAFlood(t *testing.T) {
	var endless [2]*os.File
	for i := range endless {
		var err error
		if endless[i], err = os.Open("/dev/zero"); err != nil {
			t.Fatal(err)
		}
	}
	l := newLogbook(endless[0], endless[1])
	l.open(100<<10, true)
	if got := texts(l.take()); len(got) < 2 || !strings.HasPrefix(got[0], "std") || !strings.HasSuffix(got[len(got)-1], fmt.Sprintf(textLogsCut, 100<<10)) {
		t.Errorf("%d lines: %.100q", len(got), got)
	}
	l.close()
}

// An image whose children write without end is not waited for without end.
func TestMarksOfAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, w := io.Pipe()
		none, w2 := io.Pipe()
		l := newLogbook(out, none)
		l.open(1000, false)
		flood := time.NewTicker(time.Second)
		defer flood.Stop()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range flood.C {
				if _, err := io.WriteString(w, "more\n"); err != nil {
					return
				}
			}
		}()
		began := time.Now()
		if _, complete := l.takeMarked(true); complete || time.Since(began) > 2*logsLongest {
			t.Errorf("complete = %v after %v", complete, time.Since(began))
		}
		l.close()
		<-done
		w2.Close()
	})
}
