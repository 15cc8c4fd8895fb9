package whisk_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/millrace/millrace/internal/whisk"
)

func TestErrors(t *testing.T) {
	inner := whisk.E(whisk.NotFound, "get action", errors.New("it is not there"))
	err := fmt.Errorf("resolve: %w", inner)
	if !errors.Is(err, whisk.NotFound) || errors.Is(err, whisk.Conflict) {
		t.Errorf("kinds of %v are wrong", err)
	}
	if got := err.Error(); got != "resolve: get action: it is not there" {
		t.Errorf("text for operators = %q", got)
	}
	if got := whisk.Message(err); got != "it is not there" {
		t.Errorf("text for callers = %q", got)
	}
	if got := whisk.Message(errors.New("disk /dev/sda failed")); got != "There was an internal server error." {
		t.Errorf("an internal error shows %q", got)
	}
	if got := whisk.Message(whisk.E(whisk.Internal, "get action", whisk.ErrCorrupt)); got != "Resource is corrupted and cannot be read." {
		t.Errorf("a corrupt entity shows %q", got)
	}
	hinted := whisk.WithHint(err, "create it first")
	if whisk.HintOf(hinted) != "create it first" || whisk.KindOf(hinted) != whisk.NotFound || whisk.Message(hinted) != "resolve: get action: it is not there" && whisk.Message(hinted) != "it is not there" {
		t.Errorf("hinted error: %v, hint %q, kind %v, message %q", hinted, whisk.HintOf(hinted), whisk.KindOf(hinted), whisk.Message(hinted))
	}
	if whisk.HintOf(err) != "" {
		t.Error("an error without a hint has one")
	}
	for _, k := range []whisk.Kind{whisk.Invalid, whisk.Unauthorized, whisk.Forbidden, whisk.NotFound, whisk.Conflict, whisk.TooLarge, whisk.Throttled, whisk.Unavailable} {
		if got := whisk.KindOfStatus(k.Status()); got != k {
			t.Errorf("KindOfStatus(%d) = %v, want %v", k.Status(), got, k)
		}
	}
}
