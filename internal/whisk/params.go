package whisk

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
)

// Param is one parameter, or one annotation, of an entity. Value is any JSON.
type Param struct {
	Key        string          `json:"key"`
	Value      json.RawMessage `json:"value"`
	Init       bool            `json:"init,omitempty"`       // given to /init as environment, not to /run
	Encryption string          `json:"encryption,omitempty"` // the client's word; kept, not interpreted
}

// Params are the parameters of an entity, or its annotations, in the order in
// which they were given. On the wire they are an array of {key, value}.
type Params []Param

var errParams = errors.New("parameters malformed!")

// UnmarshalJSON reads the wire form. Of two entries with one key the later
// counts. Anything but an array of objects with key and value is refused with
// OpenWhisk's text.
func (p *Params) UnmarshalJSON(b []byte) error {
	var list []struct {
		Key        *string         `json:"key"`
		Value      json.RawMessage `json:"value"`
		Init       bool            `json:"init"`
		Encryption string          `json:"encryption"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return errParams
	}
	out := make(Params, 0, len(list))
	at := make(map[string]int, len(list))
	for _, e := range list {
		if e.Key == nil || e.Value == nil {
			return errParams
		}
		v := e.Value
		var c bytes.Buffer
		if json.Compact(&c, v) == nil {
			v = c.Bytes()
		}
		out = out.put(at, Param{*e.Key, v, e.Init, e.Encryption})
	}
	*p = out
	return nil
}

// MarshalJSON writes the wire form; no parameters are an empty array.
func (p Params) MarshalJSON() ([]byte, error) {
	if p == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]Param(p))
}

// Get returns the value of key, or nil.
func (p Params) Get(key string) json.RawMessage {
	for i := range p {
		if p[i].Key == key {
			return p[i].Value
		}
	}
	return nil
}

// Text returns the value of key if it is a JSON string, else "".
func (p Params) Text(key string) string {
	var s string
	if v := p.Get(key); v == nil || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// Truthy reports whether an annotation is set and is neither false, null, 0
// nor "", which is how OpenWhisk reads its flags.
func (p Params) Truthy(key string) bool {
	switch string(p.Get(key)) {
	case "", "false", "null", "0", `""`:
		return false
	}
	return true
}

// With returns p with e in the place of its namesake, or at the end. It does
// not change p.
func (p Params) With(e Param) Params {
	out := slices.Clone(p)
	if i := slices.IndexFunc(out, func(o Param) bool { return o.Key == e.Key }); i >= 0 {
		out[i] = e
		return out
	}
	return append(out, e)
}

// Set is With for a plain value that is known to be JSON.
func (p Params) Set(key, value string) Params {
	return p.With(Param{Key: key, Value: json.RawMessage(value)})
}

// Without returns p without key. It does not change p.
func (p Params) Without(key string) Params {
	return slices.DeleteFunc(slices.Clone(p), func(e Param) bool { return e.Key == key })
}

// Over returns base with every entry of p laid over it: p wins.
func (p Params) Over(base Params) Params {
	if len(p) == 0 {
		return base
	}
	out := make(Params, 0, len(base)+len(p))
	at := make(map[string]int, len(base)+len(p))
	for _, e := range base {
		out = out.put(at, e)
	}
	for _, e := range p {
		out = out.put(at, e)
	}
	return out
}

// put is With in place, for many entries: at holds where each key is, so that
// a million of them take no longer than they must.
func (p Params) put(at map[string]int, e Param) Params {
	if i, ok := at[e.Key]; ok {
		p[i] = e
		return p
	}
	at[e.Key] = len(p)
	return append(p, e)
}

// Size is the number of bytes that OpenWhisk counts against MaxParams: keys
// and compact values.
func (p Params) Size() int {
	n := 0
	for _, e := range p {
		n += len(e.Key) + len(e.Value)
	}
	return n
}

// Object returns p laid under payload as one JSON object: what an action, or a
// filter, gets to see. Init parameters are left out when the caller says so.
// A payload that is empty counts as {}; one that is not an object replaces
// everything, as OpenWhisk does with arrays between actions.
func (p Params) Object(payload json.RawMessage, withInit bool) (json.RawMessage, error) {
	payload = bytes.TrimSpace(payload)
	if len(payload) == 0 || string(payload) == "null" {
		payload = json.RawMessage("{}")
	}
	if payload[0] != '{' || len(p) == 0 {
		return payload, nil
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(payload, &given); err != nil {
		return nil, E(Invalid, "merge parameters", err)
	}
	for _, e := range p {
		if _, ok := given[e.Key]; !ok && (withInit || !e.Init) {
			given[e.Key] = e.Value
		}
	}
	return json.Marshal(given)
}
