package servertest_test

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// alone measures one event at a time through a rule: from its request until it
// is accepted, until its action is marked as started and until it is recorded,
// as someone sees it who follows the stream.
func alone(b *testing.B, p *servertest.Process, driver string) {
	b.Helper()
	p.PutRule(b, "on-single", "single", "noop", nil)
	req, err := http.NewRequestWithContext(b.Context(), "GET", p.URL+"/hub/v1/events/stream?trigger=single", nil)
	if err != nil {
		b.Fatal(err)
	}
	user, key, _ := strings.Cut(p.Auth, ":")
	req.SetBasicAuth(user, key)
	res, err := p.HTTP.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	until := func(kind string) error {
		for lines.Scan() {
			if lines.Text() == "event: "+kind {
				return nil
			}
		}
		return errors.Join(fmt.Errorf("the stream ended before a %s", kind), lines.Err())
	}
	w := dial(b, p.Client, 1, "POST", firePath+"single", `{"n":1}`, 202)
	var accepted, started, recorded []time.Duration
	for begun := time.Now(); time.Since(begun) < span; {
		sent := time.Now()
		if err := w.call(); err != nil {
			b.Fatal(err)
		}
		accepted = append(accepted, time.Since(sent))
		if err := until("start"); err != nil {
			b.Fatal(err)
		}
		started = append(started, time.Since(sent))
		if err := until("record"); err != nil {
			b.Fatal(err)
		}
		recorded = append(recorded, time.Since(sent))
	}
	for _, l := range []struct {
		what  string
		times []time.Duration
	}{{"accepted", accepted}, {"started", started}, {"recorded", recorded}} {
		slices.Sort(l.times)
		n := len(l.times)
		line(driver+": one event, "+l.what, load{float64(n) / span.Seconds(), l.times[n/2], l.times[n*99/100]}, "since its request")
	}
}
