package whisk_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

func TestActivationWire(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000).UTC()
	a := whisk.Activation{
		ID: whisk.DeriveID(start, "a"), Namespace: "guest", Name: "hello", Version: "0.0.1", Subject: "guest",
		Start: start, End: start.Add(12 * time.Millisecond), Duration: 12 * time.Millisecond,
		Outcome: whisk.ApplicationError, Result: json.RawMessage(`{"error":"no"}`), Size: 14,
		Logs: []string{"x stdout: hi"}, Annotations: whisk.Params{}.Set("path", `"guest/hello"`),
	}
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"activationId":"` + a.ID + `","annotations":[{"key":"path","value":"guest/hello"}],"duration":12,"end":1700000000012,` +
		`"logs":["x stdout: hi"],"name":"hello","namespace":"guest","publish":false,` +
		`"response":{"result":{"error":"no"},"size":14,"status":"application error","success":false},` +
		`"start":1700000000000,"subject":"guest","version":"0.0.1"}`
	if string(b) != want {
		t.Errorf("record =\n%s, want\n%s", b, want)
	}
	var back whisk.Activation
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, a) {
		t.Errorf("read back %+v, %v, want %+v", back, err, a)
	}
	sum, _ := json.Marshal(a.Summary())
	want = `{"namespace":"guest","name":"hello","version":"0.0.1","publish":false,"annotations":[{"key":"path","value":"guest/hello"}],` +
		`"activationId":"` + a.ID + `","start":1700000000000,"end":1700000000012,"duration":12,"statusCode":1}`
	if string(sum) != want {
		t.Errorf("summary =\n%s, want\n%s", sum, want)
	}
}

func TestTriggerRecordHasNoEnd(t *testing.T) {
	a := whisk.Activation{ID: "x", Start: time.UnixMilli(5), Result: json.RawMessage(`{}`), Size: -1}
	b, _ := json.Marshal(a)
	want := `{"activationId":"x","annotations":[],"logs":[],"name":"","namespace":"","publish":false,` +
		`"response":{"result":{},"status":"success","success":true},"start":5,"subject":"","version":""}`
	if string(b) != want {
		t.Errorf("record =\n%s, want\n%s", b, want)
	}
}

func TestFilterName(t *testing.T) {
	for _, tt := range []struct{ path, binding, want string }{
		{"guest/hello", "", "hello"},
		{"guest/p/hello", "", "p/hello"},
		{"other/p/hello", "guest/mine", "mine/hello"},
	} {
		a := whisk.Activation{Name: "hello", Annotations: whisk.Params{}.Set("path", `"`+tt.path+`"`)}
		if tt.binding != "" {
			a.Annotations = a.Annotations.Set("binding", `"`+tt.binding+`"`)
		}
		if got := a.FilterName(); got != tt.want {
			t.Errorf("FilterName with path %q, binding %q = %q, want %q", tt.path, tt.binding, got, tt.want)
		}
	}
}

// Clients take the end for the start and the duration.
func TestTimesAddUp(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000).Add(900 * time.Microsecond).UTC()
	const took = 2200 * time.Microsecond // ends at 3.1 ms: cut, 3 - 0 is not 2
	for _, tt := range []struct {
		name     string
		duration time.Duration
		want     int64
	}{
		{"a run", took, 3},
		{"a sum of other runs", time.Millisecond, 1},
	} {
		a := whisk.Activation{Start: start, End: start.Add(took), Duration: tt.duration}
		for form, v := range map[string]any{"record": a, "summary": a.Summary()} {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			var got struct{ Start, End, Duration int64 }
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			if got.Duration != tt.want || got.End-got.Start != 3 {
				t.Errorf("%s: %s has start %d, end %d, duration %d, want duration %d", tt.name, form, got.Start, got.End, got.Duration, tt.want)
			}
		}
	}
}

func TestAttemptTellsTheFailure(t *testing.T) {
	long := strings.Repeat("é", 1000) // cut within a character
	for _, tt := range []struct {
		name, result string
		outcome      whisk.Outcome
		want         string
	}{
		{"success", `{"error":"not one"}`, whisk.Success, ""},
		{"text", `{"error":"it broke"}`, whisk.ApplicationError, "it broke"},
		{"object", `{"error":{"code":7}}`, whisk.DeveloperError, `{"code":7}`},
		{"none", `{"other":1}`, whisk.WhiskError, ""},
		{"no object", `[1]`, whisk.ApplicationError, ""},
		{"no result", ``, whisk.WhiskError, ""},
		{"long", `{"error":"` + long + `"}`, whisk.ApplicationError, long[:1024]},
		{"long and odd", `{"error":"x` + long + `"}`, whisk.ApplicationError, "x" + long[:1022]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			due := time.UnixMilli(2000).UTC()
			a := whisk.Activation{ID: "a", Start: time.UnixMilli(0), End: time.UnixMilli(1000), Outcome: tt.outcome, Result: []byte(tt.result)}
			got := a.Attempt(due)
			if got.Error != tt.want {
				t.Errorf("error = %q, want %q", got.Error, tt.want)
			}
			if got.ActivationID != "a" || got.Started != a.Start || got.Ended != a.End || got.Status != tt.outcome.String() || got.Due != due {
				t.Errorf("attempt = %+v of %+v", got, a)
			}
		})
	}
}

func TestDeadLetterIDIsTheSameForTheSameEnd(t *testing.T) {
	m := whisk.Match{Event: 7, Rule: whisk.Name{Namespace: "ns", Entity: "r"}}
	since, ended := time.UnixMilli(1_700_000_000_000), time.UnixMilli(1_700_000_005_000)
	tried := []whisk.Attempt{{ActivationID: whisk.NewID(since)}, {ActivationID: whisk.NewID(since), Ended: ended}}
	id := whisk.DeadLetterID(m, tried, since)
	if again := whisk.DeadLetterID(m, tried, ended); again != id {
		t.Errorf("the letter written again is %s, want %s", again, id)
	}
	if got := whisk.IDTime(id); !got.Equal(ended) {
		t.Errorf("its time is %v, want that of the last attempt's end, %v", got, ended)
	}
	if got := whisk.DeadLetterID(m, tried[:1], since); got == id {
		t.Error("another last attempt gives the same letter")
	}
	if got := whisk.IDTime(whisk.DeadLetterID(m, nil, since)); !got.Equal(since) {
		t.Errorf("the time of a match that was never tried is %v, want %v", got, since)
	}
}
