package auth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/internal/auth"
	"github.com/millrace/millrace/internal/whisk"
)

// memTable is a table in memory that behaves as the store's.
type memTable struct {
	mu   sync.Mutex
	rows map[whisk.Name]auth.Record
	revs map[whisk.Name]whisk.Revision
	last whisk.Revision
	fail error // given by every write
}

func newTable() *memTable {
	return &memTable{rows: map[whisk.Name]auth.Record{}, revs: map[whisk.Name]whisk.Revision{}}
}

func (m *memTable) Get(n whisk.Name) (auth.Record, whisk.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.rows[n]
	if !ok {
		return auth.Record{}, 0, whisk.E(whisk.NotFound, "get", errors.New("none"))
	}
	return r, m.revs[n], nil
}

func (m *memTable) Put(_ context.Context, n whisk.Name, v auth.Record, prev whisk.Revision) (whisk.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return 0, m.fail
	}
	if m.revs[n] != prev {
		return 0, whisk.E(whisk.Conflict, "put", errors.New("changed"))
	}
	m.last++
	m.rows[n], m.revs[n] = v, m.last
	return m.last, nil
}

func (m *memTable) Delete(_ context.Context, n whisk.Name, prev whisk.Revision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.revs[n] != prev || prev == 0 {
		return whisk.E(whisk.Conflict, "delete", errors.New("changed"))
	}
	delete(m.rows, n)
	delete(m.revs, n)
	return nil
}

func (m *memTable) List(namespace string) []auth.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []auth.Record
	for n, r := range maps.All(m.rows) {
		if namespace == "" || n.Namespace == namespace {
			out = append(out, r)
		}
	}
	return out
}

const guestKey = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502:123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP"

func basic(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }

func TestParseBasic(t *testing.T) {
	const none, invalid = "The resource requires authentication, which was not supplied with the request", "The supplied authentication is invalid"
	uuid, key, _ := strings.Cut(guestKey, ":")
	tests := []struct{ name, header, text string }{
		{"good", basic(guestKey), ""},
		{"scheme in lower case", "b" + basic(guestKey)[1:], ""},
		{"uuid in upper case", basic(strings.ToUpper(uuid) + ":" + key), ""},
		{"nothing", "", none},
		{"another scheme", "Bearer " + guestKey, invalid},
		{"scheme alone", "Basic", invalid},
		{"not base64", "Basic !!!", invalid},
		{"no colon", basic(uuid), invalid},
		{"short key", basic(guestKey[:len(guestKey)-1]), invalid},
		{"long key", basic(guestKey + "x"), invalid},
		{"no uuid", basic("23bc46b1x71f6-4ed5-8c54-816aa4f8c502:" + key), invalid},
		{"control characters", basic(uuid + ":" + key[:63] + "\n"), invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, k, err := auth.ParseBasic(tt.header)
			if tt.text == "" {
				if err != nil || u != uuid || k != key {
					t.Errorf("ParseBasic = %q, %q, %v, want the guest's key", u, k, err)
				}
				return
			}
			if !errors.Is(err, whisk.Unauthorized) || whisk.Message(err) != tt.text {
				t.Errorf("ParseBasic error = %v, want Unauthorized with %q", err, tt.text)
			}
		})
	}
}

func FuzzParseBasic(f *testing.F) {
	for _, s := range []string{"", basic(guestKey), "Basic ", "Basic Og==", "Bearer x"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^[0-9a-f-]{36}:.{64}$`)
	f.Fuzz(func(t *testing.T, header string) {
		uuid, key, err := auth.ParseBasic(header)
		if err != nil {
			if !errors.Is(err, whisk.Unauthorized) {
				t.Errorf("ParseBasic(%q) error = %v, want Unauthorized", header, err)
			}
			return
		}
		if !form.MatchString(uuid + ":" + key) {
			t.Errorf("ParseBasic(%q) took %q:%q for a key", header, uuid, key)
		}
		if u, k, err := auth.ParseBasic(basic(uuid + ":" + key)); err != nil || u != uuid || k != key {
			t.Errorf("ParseBasic of its own answer = %q, %q, %v", u, k, err)
		}
	})
}

// FuzzParseKey holds the parser against the shape as an expression.
func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"", guestKey, strings.ToUpper(guestKey[:36]) + guestKey[36:], guestKey[:100] + "\n", "-" + guestKey[1:]} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}):([\x21-\x7e]{64})$`)
	f.Fuzz(func(t *testing.T, s string) {
		uuid, key, err := auth.ParseKey(s)
		switch m := form.FindStringSubmatch(s); {
		case m == nil && !errors.Is(err, whisk.Unauthorized):
			t.Errorf("ParseKey(%q) = %q, %q, %v, want Unauthorized", s, uuid, key, err)
		case m != nil && (err != nil || uuid != strings.ToLower(m[1]) || key != m[2]):
			t.Errorf("ParseKey(%q) = %q, %q, %v", s, uuid, key, err)
		}
	})
}

func TestCreateAndAuthenticate(t *testing.T) {
	table := newTable()
	keys := auth.NewKeys(table)
	uuid, key, err := keys.Create(t.Context(), "guest", "guest", auth.Owner)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}:[0-9A-Za-z]{64}$`).MatchString(uuid + ":" + key) {
		t.Errorf("key %s:%s has not OpenWhisk's shape", uuid, key)
	}
	want := auth.Identity{Subject: "guest", Namespace: "guest", UUID: uuid, Role: auth.Owner}
	for name, u := range map[string]string{"as made": uuid, "upper case": strings.ToUpper(uuid)} {
		if got, err := keys.Authenticate(u, key); err != nil || got != want {
			t.Errorf("%s: Authenticate = %+v, %v, want %+v", name, got, err, want)
		}
	}
	other, _, err := keys.Create(t.Context(), "someone", "else", auth.Viewer)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][2]string{
		"wrong key":       {uuid, strings.Repeat("x", 64)},
		"another's uuid":  {other, key},
		"unknown uuid":    {"00000000-0000-4000-8000-000000000000", key},
		"malformed":       {"x", "y"},
		"hash as the key": {uuid, table.rows[whisk.Name{Entity: uuid}].Hash},
	} {
		_, err := keys.Authenticate(bad[0], bad[1])
		if !errors.Is(err, whisk.Unauthorized) || whisk.Message(err) != "The supplied authentication is invalid" {
			t.Errorf("%s: error = %v, want Unauthorized with upstream's text", name, err)
		}
	}
	for n, r := range table.rows {
		if strings.Contains(r.Hash, key) || n.Namespace != "" && r.Hash != "" {
			t.Errorf("row %v holds what it should not: %+v", n, r)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	keys := auth.NewKeys(newTable())
	for name, tt := range map[string]struct {
		subject, namespace string
		role               auth.Role
	}{
		"short subject": {"abcd", "ns", auth.Owner},
		"bad namespace": {"abcde", "n/s", auth.Owner},
		"unknown role":  {"abcde", "ns", "god"},
		"no role":       {"abcde", "ns", ""},
	} {
		if _, _, err := keys.Create(t.Context(), tt.subject, tt.namespace, tt.role); !errors.Is(err, whisk.Invalid) {
			t.Errorf("%s: error = %v, want Invalid", name, err)
		}
	}
	if _, _, err := keys.CreateUntil(t.Context(), "abcde", "ns", auth.Owner, time.Now().Add(-time.Second)); !errors.Is(err, whisk.Invalid) {
		t.Errorf("a dead key: error = %v, want Invalid", err)
	}
	broken := newTable()
	broken.fail = whisk.E(whisk.Unavailable, "put", errors.New("disk is full"))
	if _, _, err := auth.NewKeys(broken).Create(t.Context(), "abcde", "ns", auth.Owner); !errors.Is(err, whisk.Unavailable) {
		t.Errorf("a table that fails: error = %v, want its own kind", err)
	}
}

func TestDeleteAndOwner(t *testing.T) {
	keys := auth.NewKeys(newTable())
	if _, ok := keys.Owner("guest"); ok {
		t.Error("a namespace without keys has an owner")
	}
	create := func(role auth.Role) (uuid, key string) {
		t.Helper()
		uuid, key, err := keys.Create(t.Context(), "subject-"+string(role), "guest", role)
		if err != nil {
			t.Fatal(err)
		}
		return uuid, key
	}
	create(auth.Viewer)
	first, key := create(auth.Owner)
	second, _ := create(auth.Owner)
	if id, ok := keys.Owner("guest"); !ok || id.UUID != first {
		t.Errorf("Owner = %+v, %v, want the oldest owner %s", id, ok, first)
	}
	if n := len(keys.List("guest")); n != 3 {
		t.Errorf("List has %d keys, want 3", n)
	}
	for _, r := range keys.List("guest") {
		if r.Hash != "" {
			t.Errorf("List shows the hash of %s", r.UUID)
		}
	}
	if err := keys.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Authenticate(first, key); !errors.Is(err, whisk.Unauthorized) {
		t.Errorf("a deleted key: error = %v, want Unauthorized", err)
	}
	if id, ok := keys.Owner("guest"); !ok || id.UUID != second {
		t.Errorf("Owner = %+v, %v, want the one left, %s", id, ok, second)
	}
	if err := keys.Delete(t.Context(), first); !errors.Is(err, whisk.NotFound) {
		t.Errorf("deleting twice: error = %v, want NotFound", err)
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := auth.NewKeys(newTable())
		until := time.Now().Add(time.Hour)
		uuid, key, err := keys.CreateUntil(t.Context(), "guest", "guest", auth.Owner, until)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - 1)
		if id, err := keys.Authenticate(uuid, key); err != nil || !id.Expires.Equal(until) {
			t.Errorf("just before: %+v, %v, want a key that expires %v", id, err, until)
		}
		time.Sleep(time.Nanosecond)
		if _, err := keys.Authenticate(uuid, key); !errors.Is(err, whisk.Unauthorized) {
			t.Errorf("at its end: error = %v, want Unauthorized", err)
		}
		if _, ok := keys.Owner("guest"); ok {
			t.Error("an expired key owns its namespace")
		}
		if n := len(keys.List("guest")); n != 1 {
			t.Errorf("List has %d keys, want the expired one", n)
		}
	})
}

func TestMint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		keys := auth.NewKeys(table)
		owner := auth.Identity{Subject: "guest", Namespace: "guest", UUID: "u", Role: auth.Owner}
		owner.Origin = whisk.Origin{Cause: "c", Correlation: "first", Hops: 3}
		var authkeys []string
		for i := range 100 {
			// Not in the order of their deadlines.
			authkeys = append(authkeys, keys.Mint(owner, time.Now().Add(time.Duration(1+i*37%100)*time.Second)))
		}
		alive := func(authkey string) bool {
			uuid, key, err := auth.ParseKey(authkey)
			if err != nil {
				t.Fatalf("minted key %q: %v", authkey, err)
			}
			id, err := keys.Authenticate(uuid, key)
			if err == nil && (id.Subject != "guest" || id.Namespace != "guest" || id.Role != auth.Owner || id.UUID != uuid || id.Origin != owner.Origin) {
				t.Errorf("minted identity = %+v, want the owner's with uuid %s and the origin", id, uuid)
			}
			if _, err := keys.Authenticate(uuid, strings.Repeat("x", 64)); err == nil {
				t.Error("a minted uuid with another key is taken")
			}
			return err == nil
		}
		for s := range 101 {
			for i, k := range authkeys {
				if got, want := alive(k), s < 1+i*37%100; got != want {
					t.Fatalf("after %d s key %d is alive = %v, want %v", s, i, got, want)
				}
			}
			if s == 50 {
				keys.Mint(owner, time.Now().Add(time.Second)) // sweeps
			}
			time.Sleep(time.Second)
		}
		if len(table.rows) != 0 {
			t.Errorf("%d minted keys were stored", len(table.rows))
		}
	})
}

func TestPreset(t *testing.T) {
	table := newTable()
	keys := auth.NewKeys(table)
	uuid, key, _ := strings.Cut(guestKey, ":")
	for range 2 {
		if err := keys.Preset(t.Context(), "guest", "guest", guestKey); err != nil {
			t.Fatal(err)
		}
	}
	if table.last != 2 {
		t.Errorf("%d writes for a key preset twice, want those of once, 2", table.last)
	}
	if id, err := keys.Authenticate(uuid, key); err != nil || id.Role != auth.Owner || id.Namespace != "guest" {
		t.Errorf("Authenticate = %+v, %v, want an owner of guest", id, err)
	}
	made, madeKey, err := keys.Create(t.Context(), "guest", "guest", auth.Owner)
	if err != nil {
		t.Fatal(err)
	}
	changed := uuid + ":" + strings.Repeat("a", 64)
	if err := keys.Preset(t.Context(), "guest", "guest", changed); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Authenticate(uuid, key); err == nil {
		t.Error("the old key works after a new one was preset for its uuid")
	}
	if err := keys.Preset(t.Context(), "guest", "guest", "00000000"+guestKey[8:]); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Authenticate(uuid, strings.Repeat("a", 64)); err == nil {
		t.Error("a preset key works after another was preset")
	}
	if _, err := keys.Authenticate(made, madeKey); err != nil {
		t.Errorf("a key that was made went with the preset one: %v", err)
	}
	if err := keys.Preset(t.Context(), "guest", "guest", "short:key"); !errors.Is(err, whisk.Invalid) {
		t.Errorf("a malformed key: error = %v, want Invalid", err)
	}
	if err := keys.Preset(t.Context(), "other", "other", made+":"+madeKey); !errors.Is(err, whisk.Conflict) {
		t.Errorf("another's uuid: error = %v, want Conflict", err)
	}
	if names := slices.Collect(maps.Keys(table.rows)); len(names) != 4 {
		t.Errorf("rows = %v, want two for each of two keys", names)
	}
}

func TestKeysConcurrently(t *testing.T) {
	keys := auth.NewKeys(newTable())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				uuid, key, err := keys.Create(t.Context(), "guest", "guest", auth.Owner)
				if err != nil {
					t.Error(err)
					return
				}
				id, err := keys.Authenticate(uuid, key)
				if err != nil {
					t.Error(err)
					return
				}
				u, k, _ := auth.ParseKey(keys.Mint(id, time.Now().Add(time.Minute)))
				if _, err := keys.Authenticate(u, k); err != nil {
					t.Error(err)
				}
				if err := keys.Delete(t.Context(), uuid); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(keys.List("guest")); n != 0 {
		t.Errorf("%d keys are left, want none", n)
	}
}
