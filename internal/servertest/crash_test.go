package servertest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/servertest"
)

// kills is how often the crash test kills the server.
const kills = 20

// TestCrash fires triggers from 16 clients, beside a cron feed of one second,
// while the server is killed again and again, then accounts for every event
// that was acknowledged by what the actions did outside.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("kills a real server twenty times")
	}
	for _, driver := range servertest.Drivers() {
		t.Run(driver, func(t *testing.T) { crash(t, driver) })
	}
}

func crash(t *testing.T, driver string) {
	sink := servertest.NewSink(t, driver == "docker")
	p := newProcess(t, driver)
	p.Start()
	p.PutAction(t, "work", "python:3", sink.SinkAction("fired"))
	p.PutAction(t, "tick", "python:3", sink.SinkAction("cron"))
	p.PutRule(t, "on-fired", "fired", "work", nil)
	p.PutRule(t, "on-cron", "cron", "tick", nil)
	p.Feed(t, "CREATE", "/whisk.system/alarms/alarm", "cron", map[string]any{"cron": "* * * * * *", "misfire": "all"})

	acked := fireWhileKilling(t, p)
	p.Must(t, http.StatusOK, "DELETE", "/api/v1/namespaces/_/rules/on-cron", nil, nil)
	p.Feed(t, "DELETE", "/whisk.system/alarms/alarm", "cron", nil)
	t.Logf("%d events were acknowledged over %d kills", len(acked), kills)
	if len(acked) == 0 {
		t.Fatal("no event was acknowledged: the test shows nothing")
	}

	events := accountFor(t, p, sink, acked)
	checkRunsOnce(t, sink)
	checkSlots(t, p, events)
}

func newProcess(t testing.TB, driver string) *servertest.Process {
	file := filepath.Join(t.TempDir(), "runtimes.json")
	if err := os.WriteFile(file, []byte(servertest.TestRuntimes), 0o600); err != nil {
		t.Fatal(err)
	}
	return servertest.NewProcess(t, "--driver", driver, "--runtimes", file, "--memory", "1g")
}

// fireWhileKilling returns the number that each acknowledged event carried, by
// its ID.
func fireWhileKilling(t *testing.T, p *servertest.Process) map[string]int64 {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var (
		mu    sync.Mutex
		acked = map[string]int64{}
		next  atomic.Int64
		wg    sync.WaitGroup
	)
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := next.Add(1)
				a, err := p.Do(ctx, "POST", "/api/v1/namespaces/_/triggers/fired", fmt.Sprintf(`{"n":%d}`, n))
				if err != nil || a.Status != http.StatusAccepted {
					pause(ctx, 10*time.Millisecond) // the server is down; nothing was promised
					continue
				}
				var got struct{ ActivationID string }
				if err := json.Unmarshal(a.Body, &got); err != nil {
					t.Errorf("the answer %s to a fire: %v", a.Body, err)
					return
				}
				mu.Lock()
				acked[got.ActivationID] = n
				mu.Unlock()
				pause(ctx, 20*time.Millisecond) // the road, not the door, is what is to be crowded
			}
		})
	}
	for i := range kills {
		pause(ctx, time.Duration(200+rand.IntN(1300))*time.Millisecond)
		p.Kill()
		if i == kills/2 {
			if err := os.Remove(filepath.Join(p.Data, "index.db")); err != nil {
				t.Error(err)
			}
		}
		p.Start()
	}
	stop()
	wg.Wait()
	return acked
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// explanation is what /hub/v1/events/{id}/explain tells of an event.
type explanation struct {
	Rules []struct {
		Rule, Decision, ActivationID string
		Attempts                     []struct{ ActivationID, Status string }
		DeadLetter                   string
	}
}

// accountFor waits until every acknowledged event ran or is a dead letter, and
// checks that each was judged once. It returns the IDs of all events of the
// cron trigger.
func accountFor(t *testing.T, p *servertest.Process, sink *servertest.Sink, acked map[string]int64) []string {
	missing := func() []string {
		ran := map[string]bool{}
		for _, r := range sink.Runs() {
			if r.Trigger == "fired" {
				ran[string(r.Key)] = true
			}
		}
		var out []string
		for id, n := range acked {
			if !ran[fmt.Sprint(n)] {
				out = append(out, id)
			}
		}
		return out
	}
	servertest.Eventually(t, 3*time.Minute, "every acknowledged event has run or is a dead letter", func() bool {
		left := missing()
		if len(left) == 0 {
			return true
		}
		if len(left) > 20 {
			return false
		}
		return !slices.ContainsFunc(left, func(id string) bool {
			a, err := p.Do(t.Context(), "GET", "/hub/v1/events/"+id+"/explain", nil)
			var ex explanation
			// It may not be judged yet.
			return err != nil || a.Status != http.StatusOK || json.Unmarshal(a.Body, &ex) != nil ||
				len(ex.Rules) != 1 || ex.Rules[0].DeadLetter == ""
		})
	})
	for id := range acked {
		ex := explain(t, p, id)
		if len(ex.Rules) != 1 || ex.Rules[0].Decision != "matched" {
			t.Errorf("event %s has the verdicts %+v, want one match", id, ex.Rules)
			continue
		}
		if ex.Rules[0].DeadLetter == "" && !slices.ContainsFunc(ex.Rules[0].Attempts, func(a struct{ ActivationID, Status string }) bool {
			return a.Status == "success"
		}) {
			t.Errorf("event %s ran, but its attempts tell %+v", id, ex.Rules[0].Attempts)
		}
	}
	return listEvents(t, p, "cron")
}

func explain(t *testing.T, p *servertest.Process, id string) explanation {
	var ex explanation
	a, err := p.Do(t.Context(), "GET", "/hub/v1/events/"+id+"/explain", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != http.StatusOK {
		t.Errorf("explain of the acknowledged event %s = %d %s", id, a.Status, a.Body)
		return ex
	}
	if err := json.Unmarshal(a.Body, &ex); err != nil {
		t.Fatalf("explain answered %s: %v", a.Body, err)
	}
	return ex
}

func listEvents(t *testing.T, p *servertest.Process, trigger string) []string {
	var list struct {
		Events []struct{ Event struct{ ID string } }
	}
	p.Must(t, http.StatusOK, "GET", "/hub/v1/events?limit=200&trigger="+trigger, nil, &list)
	var ids []string
	for _, e := range list.Events {
		ids = append(ids, e.Event.ID)
	}
	return ids
}

// checkRunsOnce checks that no attempt ran twice.
func checkRunsOnce(t *testing.T, sink *servertest.Sink) {
	seen := map[string]int{}
	for _, r := range sink.Runs() {
		if seen[r.ActivationID]++; seen[r.ActivationID] == 2 {
			t.Errorf("the attempt %s ran twice", r.ActivationID)
		}
	}
	t.Logf("%d attempts ran", len(seen))
}

// checkSlots checks that the cron feed fired every second once.
func checkSlots(t *testing.T, p *servertest.Process, ids []string) {
	var slots []int64
	for _, id := range ids {
		var e struct {
			Event struct {
				Meta struct {
					Scheduled time.Time `json:"scheduled"`
				} `json:"meta"`
			} `json:"event"`
		}
		p.Must(t, http.StatusOK, "GET", "/hub/v1/events/"+id, nil, &e)
		slots = append(slots, e.Event.Meta.Scheduled.Unix())
	}
	slices.Sort(slots)
	if len(slots) < kills/4 {
		t.Errorf("only %d slots fired", len(slots))
	}
	for i := 1; i < len(slots); i++ {
		if slots[i] != slots[i-1]+1 {
			t.Errorf("after the slot of %v came that of %v", time.Unix(slots[i-1], 0).UTC(), time.Unix(slots[i], 0).UTC())
		}
	}
}
