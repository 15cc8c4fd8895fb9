package whisk

import "strings"

// Bounds of what Nearest takes for a slip of the fingers.
const (
	nearEdits  = 2 // letters added, lost or changed
	nearPrefix = 4 // letters in common at the beginning, as in retries and retry
	nearLong   = 64
)

// Nearest returns the one of words that word was probably meant to be, or "":
// the one that needs the fewest changes, whatever the case of its letters. It
// returns word itself when that is among them.
func Nearest(word string, words ...string) string {
	best, least := "", nearEdits+1
	low := strings.ToLower(word)
	if len(low) > nearLong {
		return ""
	}
	for _, w := range words {
		if w == word {
			return w
		}
		other := strings.ToLower(w)
		d := edits(low, other)
		switch {
		case len(low) >= nearPrefix && len(other) >= nearPrefix && low[:nearPrefix] == other[:nearPrefix]:
			d = min(d, nearEdits)
		case d > min(len(low), len(other))/2:
			continue // more than half of it would be another
		}
		if d < least {
			best, least = w, d
		}
	}
	return best
}

// edits counts the bytes to add, take away or change to make b of a.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
