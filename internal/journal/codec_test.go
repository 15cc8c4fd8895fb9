package journal

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// samples has an entry of every kind, with every field set.
func samples() []stored {
	ev := anEvent(1)
	ev.Seq, ev.Accepted = 9, epoch
	v := judge(&ev, theRule)
	v.Rules = append(v.Rules,
		whisk.RuleVerdict{Rule: theRule, Revision: 3, Action: theAction, Decision: whisk.Filtered, Reason: "n is 1"},
		whisk.RuleVerdict{Rule: theRule, Decision: whisk.Off})
	v.Problem, v.At = "too many hops", time.Date(1, 2, 3, 4, 5, 6, 7, time.UTC)
	m, inv := anInvoke(1)
	inv.Invoke.Invocation.Cause, inv.Invoke.Invocation.Transaction = m.Invoke, "tid"
	inv.Invoke.Invocation.Correlation, inv.Invoke.Invocation.Hops = ev.ID, 3
	rec := recordOf(&ev, 2, whisk.DeveloperError)
	rec.Due = epoch.Add(time.Hour)
	rec.Record.Annotations = append(rec.Record.Annotations, whisk.Param{Key: "k", Value: json.RawMessage("1"), Init: true, Encryption: "aes-128"})
	rec.Record.Logs = []string{"", "two", "日本"}
	rec.Record.Size, rec.Record.Cause = -1, m.Invoke
	carry := whisk.Pending{
		Match: matchOf(&ev), Rule: 7, Action: theAction, Event: &ev, Seq: 9, Origin: 77, EventID: ev.ID,
		Attempts: []whisk.Attempt{{ActivationID: m.Invoke, Started: epoch, Ended: epoch, Status: "success", Error: "x", Due: epoch}},
		Due:      epoch, Started: true, Exhausted: true, Since: epoch,
	}
	return []stored{
		{Entry: whisk.Entry{Kind: whisk.EntryVerdict, Verdict: &v}},
		{Entry: inv},
		{Entry: startOf(&ev, 1)},
		{Entry: rec},
		{Entry: whisk.Entry{Kind: whisk.EntryRecord, Record: rec.Record, Final: true}, logs: ""},
		{Entry: whisk.Entry{Kind: whisk.EntryDead, Match: m, Dead: m.Invoke}},
		{Entry: whisk.Entry{Kind: whisk.EntryCarry, Match: matchOf(&ev), Carry: &carry}},
		{Entry: whisk.Entry{Kind: whisk.EntryCarry, Match: m, Carry: &whisk.Pending{Match: m, Invoke: inv.Invoke}}},
		{Entry: whisk.Entry{Kind: whisk.EntryStart, ActivationID: "not an id", Match: whisk.Match{Invoke: "ABC"}}},
	}
}

func encodeAll(t testing.TB, es []stored) []byte {
	t.Helper()
	data := []byte{format}
	for i := range es {
		var err error
		if data, err = appendEntry(data, &es[i]); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

func TestCodecRoundTrip(t *testing.T) {
	want := samples()
	got, err := decodeEntries(encodeAll(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			g, _ := json.Marshal(got[i].Entry)
			w, _ := json.Marshal(want[i].Entry)
			t.Errorf("entry %d\n got %s\nwant %s", i, g, w)
		}
	}
}

// Every field of the vocabulary has a place on the wire: one that is added
// without a number would be lost silently.
func TestCodecKnowsEveryField(t *testing.T) {
	for typ, want := range map[reflect.Type]int{
		reflect.TypeFor[whisk.Entry]():       12,
		reflect.TypeFor[whisk.Verdict]():     9,
		reflect.TypeFor[whisk.RuleVerdict](): 6,
		reflect.TypeFor[whisk.Match]():       3,
		reflect.TypeFor[whisk.Invoke]():      3,
		reflect.TypeFor[whisk.Invocation]():  9,
		reflect.TypeFor[whisk.Activation]():  14,
		reflect.TypeFor[whisk.Param]():       4,
		reflect.TypeFor[whisk.Pending]():     13,
		reflect.TypeFor[whisk.Attempt]():     6,
		reflect.TypeFor[whisk.Name]():        3,
	} {
		if got := typ.NumField(); got != want {
			t.Errorf("%v has %d fields, the codec knows %d", typ, got, want)
		}
	}
}

func TestCodecMovesLargeEntries(t *testing.T) {
	a := activation(anEvent(1).ID, epoch)
	for _, n := range []int{100, 1 << 14, 1 << 20, 3 << 20} {
		a.Result = append(append([]byte{'"'}, bytes.Repeat([]byte("x"), n)...), '"')
		got, err := decodeEntries(encodeAll(t, []stored{{Entry: whisk.Entry{Kind: whisk.EntryRecord, Record: &a}}, samples()[2]}))
		if err != nil || len(got) != 2 || !bytes.Equal(got[0].Record.Result, a.Result) || got[1].ActivationID != samples()[2].ActivationID {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestCodecSkipsUnknownFields(t *testing.T) {
	e := encoder{[]byte{3}}
	e.uint(4, 2)
	e.str(1000, "new")
	e.id(1001, anEvent(1).ID)
	e.uint(1002, 5)
	s, err := decodeEntry(e.b)
	if err != nil || s.Kind != whisk.EntryStart || s.Attempt != 1 {
		t.Errorf("entry with unknown fields = %+v, %v", s, err)
	}
}

func TestCodecRefusesDamage(t *testing.T) {
	good := encodeAll(t, samples())
	for _, bad := range [][]byte{nil, {}, {2}, good[:len(good)-1], append(bytes.Clone(good), 9), append(bytes.Clone(good), 2, 99, 0)} {
		if _, err := decodeEntries(bad); err == nil {
			t.Errorf("%d bytes were read without an error", len(bad))
		}
	}
	if _, err := appendEntry(nil, &stored{Entry: whisk.Entry{Kind: "news"}}); err == nil {
		t.Error("an unknown kind was encoded")
	}
}

// What is read from any bytes is written and read back as the same.
func FuzzEntries(f *testing.F) {
	f.Add(encodeAll(f, samples()))
	for _, s := range samples() {
		f.Add(encodeAll(f, []stored{s}))
	}
	f.Add([]byte{format})
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := decodeEntries(data)
		if err != nil {
			return
		}
		for i := range first {
			if p := first[i].Carry; p != nil && p.Event != nil && len(p.Event.Payload) > 0 && !json.Valid(p.Event.Payload) {
				return
			}
		}
		again := encodeAll(t, first)
		second, err := decodeEntries(again)
		if err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		if third := encodeAll(t, second); !bytes.Equal(again, third) {
			t.Fatalf("not stable:\n%x\n%x", again, third)
		}
	})
}

func FuzzTime(f *testing.F) {
	f.Add(int64(0), uint32(0))
	f.Add(int64(-62135596800), uint32(1))
	f.Add(int64(1)<<40, uint32(999_999_999))
	f.Fuzz(func(t *testing.T, sec int64, nsec uint32) {
		if sec < -1<<40 || sec > 1<<40 {
			return
		}
		want := time.Unix(sec, int64(nsec%1e9)).UTC()
		var e encoder
		e.time(1, want)
		d := decoder{b: e.b}
		var got time.Time
		for d.next() {
			got = d.time()
		}
		if d.err != nil || !got.Equal(want) {
			t.Fatalf("%v came back as %v, %v", want, got, d.err)
		}
	})
}
