package whisk

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	options := []string{"filter", "retry", "misfire", "misfireMax", "cron", "dst"}
	for word, want := range map[string]string{
		"filtr": "filter", "Filter": "filter", "filters": "filter", "fitler": "filter", "FILTR": "filter",
		"retries": "retry", "retry": "retry", "rety": "retry", "retryPolicy": "retry",
		"misfireMx": "misfireMax", "misFire": "misfire", "crn": "cron", "corn": "cron", "dts": "",
		"note": "", "description": "", "final": "", "": "", "a": "", strings.Repeat("filter", 20): "",
	} {
		if got := Nearest(word, options...); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
	if got := Nearest("filter"); got != "" {
		t.Errorf("without words it is %q", got)
	}
}
