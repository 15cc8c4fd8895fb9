package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/store"
	"github.com/millrace/millrace/internal/whisk"
)

func TestSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.key")
	s, err := store.OpenSecrets(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 || st.Size() != 32 {
		t.Errorf("key file = %v, %v, want 32 bytes with mode 0600", st, err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("files left behind: %v", left)
	}
	for _, plain := range []string{"", "s", strings.Repeat("long ", 1000), "\x00\xff"} {
		sealed := s.Seal([]byte(plain))
		if len(plain) > 3 && strings.Contains(sealed, plain[:4]) || sealed == s.Seal([]byte(plain)) {
			t.Errorf("sealed %q = %q, want it hidden and never twice the same", plain, sealed)
		}
		again, err := store.OpenSecrets(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := again.Open(sealed); err != nil || string(got) != plain {
			t.Errorf("opened %q = %q, %v", plain, got, err)
		}
	}
}

func TestSecretsRefuse(t *testing.T) {
	dir := t.TempDir()
	s, err := store.OpenSecrets(filepath.Join(dir, "one"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := store.OpenSecrets(filepath.Join(dir, "two"))
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.Seal([]byte("secret"))
	if _, err := other.Open(sealed); !errors.Is(err, whisk.Invalid) {
		t.Errorf("another key: error = %v, want Invalid", err)
	}
	for i := range len(sealed) {
		changed := []byte(sealed)
		changed[i] ^= 1
		if got, err := s.Open(string(changed)); !errors.Is(err, whisk.Invalid) {
			t.Errorf("changed at %d: %q, %v, want Invalid", i, got, err)
		}
	}
	for _, bad := range []string{"", "v1:", "plain", "v1:!", sealed[:20]} {
		if _, err := s.Open(bad); !errors.Is(err, whisk.Invalid) {
			t.Errorf("Open(%q) error = %v, want Invalid", bad, err)
		}
	}
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenSecrets(short); !errors.Is(err, whisk.Invalid) || whisk.HintOf(err) == "" {
		t.Errorf("short key: error = %v, want Invalid with a hint", err)
	}
	if b, _ := os.ReadFile(short); string(b) != "short" {
		t.Error("a bad key file was written over")
	}
	if _, err := store.OpenSecrets(filepath.Join(dir, "none", "key")); err == nil {
		t.Error("a folder that is missing gave no error")
	}
}

func FuzzSecretsOpen(f *testing.F) {
	s, err := store.OpenSecrets(filepath.Join(f.TempDir(), "key"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Seal([]byte("x")))
	f.Add("v1:")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := s.Open(text); err != nil && !errors.Is(err, whisk.Invalid) {
			t.Errorf("Open(%q) error = %v, want Invalid", text, err)
		}
	})
}
