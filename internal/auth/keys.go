package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/whisk"
)

// Record is a key as it is stored.
type Record struct {
	UUID      string    `json:"uuid"`
	Hash      string    `json:"hash,omitempty"` // SHA-256 of the key, in hex
	Subject   string    `json:"subject"`
	Namespace string    `json:"namespace"`
	Role      Role      `json:"role"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires,omitzero"` // zero: never
	Preset    bool      `json:"preset,omitempty"` // given by the configuration, not made here
}

func (r Record) identity() Identity {
	return Identity{Subject: r.Subject, Namespace: r.Namespace, UUID: r.UUID, Role: r.Role, Expires: r.Expires}
}

func (r Record) expired() bool { return !r.Expires.IsZero() && !time.Now().Before(r.Expires) }

// Table is where records are kept. Get and List answer from memory; Put and
// Delete return when the change is durable. Revision 0 means "must not exist".
type Table interface {
	Get(n whisk.Name) (Record, whisk.Revision, error)
	Put(ctx context.Context, n whisk.Name, v Record, prev whisk.Revision) (whisk.Revision, error)
	Delete(ctx context.Context, n whisk.Name, prev whisk.Revision) error
	List(namespace string) []Record
}

// Keys are all keys of the installation. Safe for concurrent use.
//
// A key is in the table twice: by its uuid, which is the credential, and under
// its namespace, without the hash, so that the keys of one namespace are found
// without reading all. The credential is written last and deleted first, and
// alone decides whether a key exists.
type Keys struct {
	table  Table
	minted minted
}

// NewKeys returns the keys in t.
func NewKeys(t Table) *Keys { return &Keys{table: t, minted: minted{keys: map[string]*mintedKey{}}} }

func credentialName(uuid string) whisk.Name { return whisk.Name{Entity: uuid} }

func listingName(r Record) whisk.Name { return whisk.Name{Namespace: r.Namespace, Entity: r.UUID} }

// Authenticate returns whose key it is. It returns Unauthorized with
// OpenWhisk's text when there is no such key, it is not this one, or it has
// expired: the caller is not told which.
func (k *Keys) Authenticate(uuid, key string) (Identity, error) {
	const op = "authenticate"
	uuid, key, err := ParseKey(uuid + ":" + key)
	if err != nil {
		return Identity{}, invalid(op)
	}
	sum := sha256.Sum256([]byte(key))
	if id, ok := k.minted.find(uuid, sum); ok {
		return id, nil
	}
	r, _, err := k.table.Get(credentialName(uuid))
	if err != nil && !errors.Is(err, whisk.NotFound) {
		return Identity{}, whisk.E(whisk.Internal, op, err)
	}
	// A missing record is compared as well: what it takes says nothing.
	hash, _ := hex.DecodeString(r.Hash)
	if subtle.ConstantTimeCompare(hash, sum[:]) != 1 || r.expired() {
		return Identity{}, invalid(op)
	}
	return r.identity(), nil
}

// Create makes a key that never expires and returns it; it can't be read again.
// It returns Invalid for a bad subject, namespace or role.
func (k *Keys) Create(ctx context.Context, subject, namespace string, role Role) (uuid, key string, err error) {
	return k.CreateUntil(ctx, subject, namespace, role, time.Time{})
}

// CreateUntil is Create for a key that dies at expires; the zero time is never.
func (k *Keys) CreateUntil(ctx context.Context, subject, namespace string, role Role, expires time.Time) (uuid, key string, err error) {
	const op = "create key"
	if err := check(subject, namespace, role); err != nil {
		return "", "", whisk.E(whisk.Invalid, op, err)
	}
	if !expires.IsZero() && !time.Now().Before(expires) {
		return "", "", whisk.E(whisk.Invalid, op, errors.New("the key would have expired already"))
	}
	uuid, key = newKey()
	r := newRecord(uuid, key, subject, namespace, role)
	r.Expires = expires.UTC()
	if err := k.put(ctx, r); err != nil {
		return "", "", err
	}
	return uuid, key, nil
}

// Preset makes sure that authkey, uuid:key, is a key of an owner of namespace,
// as the configuration wants it. A key that an earlier configuration preset for
// the namespace is deleted: changing the setting is how a leaked one is
// revoked. It returns Invalid for a bad key, subject or namespace, and Conflict
// when the uuid is another namespace's.
func (k *Keys) Preset(ctx context.Context, subject, namespace, authkey string) error {
	const op = "preset key"
	uuid, key, err := ParseKey(authkey)
	if err != nil {
		return whisk.E(whisk.Invalid, op, errors.New("a key is a 36-character uuid, a colon and 64 characters"))
	}
	if err := check(subject, namespace, Owner); err != nil {
		return whisk.E(whisk.Invalid, op, err)
	}
	r := newRecord(uuid, key, subject, namespace, Owner)
	r.Preset = true
	old, _, err := k.table.Get(credentialName(uuid))
	switch {
	case err != nil && !errors.Is(err, whisk.NotFound):
		return whisk.E(whisk.KindOf(err), op, err)
	case err == nil && old.Namespace != namespace:
		return whisk.E(whisk.Conflict, op, errors.New("the key's uuid is that of a key of another namespace"))
	case err == nil:
		r.Created = old.Created
	}
	if old != r {
		if err := k.put(ctx, r); err != nil {
			return err
		}
	}
	for _, o := range k.table.List(namespace) {
		if o.Preset && o.UUID != uuid {
			if err := k.Delete(ctx, o.UUID); err != nil && !errors.Is(err, whisk.NotFound) {
				return err
			}
		}
	}
	return nil
}

// Delete ends a key at once. It returns NotFound when there is none with uuid.
func (k *Keys) Delete(ctx context.Context, uuid string) error {
	const op = "delete key"
	r, rev, err := k.table.Get(credentialName(uuid))
	if err != nil {
		return whisk.E(whisk.KindOf(err), op, err)
	}
	if err := k.table.Delete(ctx, credentialName(uuid), rev); err != nil {
		return whisk.E(whisk.KindOf(err), op, err)
	}
	_, rev, err = k.table.Get(listingName(r))
	if err == nil {
		err = k.table.Delete(ctx, listingName(r), rev)
	}
	if err != nil && !errors.Is(err, whisk.NotFound) {
		return whisk.E(whisk.KindOf(err), op, err)
	}
	return nil
}

// List returns the keys of a namespace, oldest first, expired ones included.
// Minted ones are not among them.
func (k *Keys) List(namespace string) []Record {
	var out []Record
	for _, l := range k.table.List(namespace) {
		if r, _, err := k.table.Get(credentialName(l.UUID)); err == nil && r.Namespace == namespace {
			r.Hash = ""
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Record) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.UUID, b.UUID))
	})
	return out
}

// Owner returns whom web actions and rules of a namespace run as: its oldest
// owner whose key has not expired. False when there is none.
func (k *Keys) Owner(namespace string) (Identity, bool) {
	for _, r := range k.List(namespace) {
		if (r.Role == Owner || r.Role == Admin) && !r.expired() {
			return r.identity(), true
		}
	}
	return Identity{}, false
}

func newRecord(uuid, key, subject, namespace string, role Role) Record {
	sum := sha256.Sum256([]byte(key))
	return Record{
		UUID: uuid, Hash: hex.EncodeToString(sum[:]), Subject: subject, Namespace: namespace,
		Role: role, Created: time.Now().UTC().Round(0),
	}
}

// put stores both forms of r over whatever is there.
func (k *Keys) put(ctx context.Context, r Record) error {
	listing := r
	listing.Hash = ""
	for _, w := range []struct {
		name whisk.Name
		rec  Record
	}{{listingName(r), listing}, {credentialName(r.UUID), r}} {
		_, rev, err := k.table.Get(w.name)
		if err != nil && !errors.Is(err, whisk.NotFound) {
			return whisk.E(whisk.KindOf(err), "store key", err)
		}
		if _, err := k.table.Put(ctx, w.name, w.rec, rev); err != nil {
			return whisk.E(whisk.KindOf(err), "store key", err)
		}
	}
	return nil
}

func check(subject, namespace string, role Role) error {
	if utf8.RuneCountInString(subject) < MinSubject {
		return fmt.Errorf("subject must be at least %d characters", MinSubject)
	}
	switch role {
	case Owner, Editor, Invoker, Viewer, Admin:
	default:
		return fmt.Errorf("role %q is not one of %s, %s, %s, %s, %s", role, Owner, Editor, Invoker, Viewer, Admin)
	}
	return whisk.CheckNamespace(namespace)
}
