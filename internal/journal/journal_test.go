package journal

import (
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

func TestRoad(t *testing.T) {
	b := newFakeBus(64 << 20)
	o := testOptions(t)
	j := openOn(t, b, o)
	evs := b.accept(t, someEvents(0, 3)...)
	j.judgeAll(evs...)
	for i := range evs {
		j.append(startOf(&evs[i], 1))
		j.append(recordOf(&evs[i], 1, whisk.Success))
		a, err := j.Activation(t.Context(), "guest", attemptID(&evs[i], theRule, 1))
		if err != nil || string(a.Result) != `{"ok":true}` || len(a.Logs) != 1 {
			t.Fatalf("record %d = %+v, %v", i, a, err)
		}
	}
	if got := j.Judged(); got.Seq != 3 || got.ID != evs[2].ID {
		t.Errorf("Judged = %v", got)
	}
	eventually(t, "everything done", func() bool { return j.Low() == j.last[inJournal]+1 && j.Floor() == 4 })
	if u := j.Undone(); len(u) != 0 {
		t.Errorf("undone: %v", u)
	}
	j.stop()

	j = openOn(t, b.kill(), o)
	if got := j.Judged(); got.Seq != 3 || got.ID != evs[2].ID {
		t.Errorf("Judged after a restart = %v", got)
	}
	if u := j.Undone(); len(u) != 0 {
		t.Errorf("undone after a restart: %v", u)
	}
	list, err := j.Activations(t.Context(), Query{Namespace: "guest"})
	if err != nil || len(list) != 6 { // three runs, three events
		t.Errorf("%d records, %v", len(list), err)
	}
	n, err := j.CountActivations(t.Context(), Query{Namespace: "guest", Name: "p/a"})
	if err != nil || n != 3 {
		t.Errorf("%d runs, %v", n, err)
	}
}
