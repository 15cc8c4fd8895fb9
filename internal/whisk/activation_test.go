package whisk_test

import (
	"encoding/json"
	"reflect"
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
