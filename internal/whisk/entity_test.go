package whisk_test

import (
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

func TestNextVersion(t *testing.T) {
	for in, want := range map[string]string{"": "0.0.1", "0.0.1": "0.0.2", "1.9.9": "1.9.10", "nonsense": "0.0.1"} {
		if got := whisk.NextVersion(in); got != want {
			t.Errorf("NextVersion(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestRuleEffective(t *testing.T) {
	r := whisk.Rule{Status: whisk.Active, Incarnation: "1"}
	for name, tt := range map[string]struct {
		trigger *whisk.Trigger
		want    whisk.Status
	}{
		"linked":           {&whisk.Trigger{Incarnation: "1"}, whisk.Active},
		"trigger gone":     {nil, whisk.Inactive},
		"trigger made new": {&whisk.Trigger{Incarnation: "2"}, whisk.Inactive},
	} {
		if got := r.Effective(tt.trigger); got != tt.want {
			t.Errorf("%s: status = %v, want %v", name, got, tt.want)
		}
	}
}
