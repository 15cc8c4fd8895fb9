package invoker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/whisk"
)

// arguments lays the payload over the parameters of run and splits the result:
// value is what /run gets, env what /init gets as environment.
func arguments(run *whisk.Runnable, payload json.RawMessage) (value json.RawMessage, env map[string]string, err error) {
	env = initEnv(run.Params)
	// Nothing is to be taken out, so the object need not be decoded.
	if env == nil {
		value, err = run.Params.Object(payload, false)
		return value, nil, err
	}
	whole, err := run.Params.Object(payload, true)
	if err != nil || whole[0] != '{' {
		return whole, env, err // an array replaces the arguments, not the environment
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(whole, &members); err != nil {
		return nil, nil, whisk.E(whisk.Invalid, "split init parameters", err)
	}
	for name := range env {
		// The payload may override an init parameter: then the container must
		// be another one, which keyOfBegun sees to.
		env[name] = envText(members[name])
		delete(members, name)
	}
	value, err = json.Marshal(members)
	return value, env, err
}

// initEnv returns the init parameters as environment; nil when there are none.
func initEnv(params whisk.Params) map[string]string {
	var env map[string]string
	for _, p := range params {
		if p.Init {
			if env == nil {
				env = map[string]string{}
			}
			env[p.Key] = envText(p.Value)
		}
	}
	return env
}

// envText is how a value is written in an environment: strings bare, null as
// nothing, the rest as compact JSON.
func envText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s // null leaves it empty
	}
	return string(v)
}

// envHash tells environments apart; empty for none.
func envHash(env map[string]string) string {
	if len(env) == 0 {
		return ""
	}
	// In one order, and each text behind its length: no two environments can
	// write the same bytes.
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(env)) {
		h.Write(strconv.AppendInt(nil, int64(len(k)), 10))
		h.Write([]byte(":" + k))
		h.Write(strconv.AppendInt(nil, int64(len(env[k])), 10))
		h.Write([]byte(":" + env[k]))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// call is what an activation is told about itself.
type call struct {
	namespace, action, version, id, transaction, key string
	deadline                                         time.Time
}

// env returns c as an init's environment has it.
func (c *call) env(into map[string]string) map[string]string {
	if into == nil {
		into = make(map[string]string, 7)
	}
	into["__OW_NAMESPACE"] = c.namespace
	into["__OW_ACTION_NAME"] = c.action
	into["__OW_ACTION_VERSION"] = c.version
	into["__OW_ACTIVATION_ID"] = c.id
	into["__OW_TRANSACTION_ID"] = c.transaction
	into["__OW_DEADLINE"] = strconv.FormatInt(c.deadline.UnixMilli(), 10)
	if c.key != "" {
		into["__OW_API_KEY"] = c.key
	}
	return into
}

// body appends the body of a /run with value as its arguments. It is put
// together by hand, as value is JSON already and may have a MiB: an encoder
// would check it again. The deadline is a string on the wire, whatever
// upstream's documents say.
func (c *call) body(b []byte, value json.RawMessage) []byte {
	b = slices.Grow(b, len(value)+320)
	b = append(append(b, `{"value":`...), value...)
	field := func(name, text string) {
		b = append(append(append(b, `,"`...), name...), `":`...)
		b = append(b, quote(text)...)
	}
	field("namespace", c.namespace)
	field("action_name", c.action)
	field("action_version", c.version)
	field("activation_id", c.id)
	field("transaction_id", c.transaction)
	field("deadline", strconv.FormatInt(c.deadline.UnixMilli(), 10))
	if c.key != "" {
		field("api_key", c.key)
	}
	return append(b, '}')
}
