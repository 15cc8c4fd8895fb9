package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/whisk"
)

// Exit codes that are no HTTP status, as wsk has them.
const (
	exitGeneral = 1
	exitUsage   = 2
	exitNetwork = 3
	exitPending = http.StatusAccepted // a blocking call that was answered before its end
)

// Failure is an answer that is not a success, or the lack of an answer.
type Failure struct {
	Status      int // HTTP's; 0 when there was no answer
	Exit        int // code to end the process with
	Message     string
	Transaction string          // names the request in the server's log; empty if unknown
	Body        json.RawMessage // the answer, if it has something to show
	Application bool            // the action answered an error: Body is its record or result
	Pending     bool            // the activation goes on: Body holds its ID
}

func (f *Failure) Error() string {
	if f.Transaction != "" {
		return fmt.Sprintf("%s (code %s)", f.Message, f.Transaction)
	}
	return f.Message
}

// ExitCode returns the code that wsk ends with for err: 0 for none, the
// status less 256 for an HTTP error, as the shell sees it.
func ExitCode(err error) int {
	var f *Failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &f):
		return f.Exit
	default:
		return exitGeneral
	}
}

// exitOfStatus keeps the low byte of status-256, which is all a shell sees.
func exitOfStatus(status int) int { return (status - 256) & 0xff }

// failure makes an error of an answer that is not a success.
func (c *Client) failure(status int, body []byte) error {
	f := &Failure{Status: status, Exit: exitOfStatus(status)}
	// Three shapes are told apart below: an error of the API, the record of an
	// action that failed, and the bare result of one.
	var e struct {
		Error    json.RawMessage `json:"error"`
		Code     json.RawMessage `json:"code"`
		Hint     string          `json:"hint"` // ours
		Response *struct {
			Status json.RawMessage `json:"status"`
			Result json.RawMessage `json:"result"`
		} `json:"response"`
	}
	decoded := json.Unmarshal(body, &e) == nil
	switch {
	case decoded && isSet(e.Error) && isSet(e.Code):
		// The server, as OpenWhisk's, breaks some texts into two lines; a cause is one.
		f.Message, f.Transaction = strings.ReplaceAll(plain(e.Error), "\n", " "), plain(e.Code)
	case decoded && status == http.StatusBadGateway && e.Response != nil && isSet(e.Response.Status):
		f.Application, f.Body = true, body
		f.Message = "The following application error was received: " + applicationMessage(e.Response.Result)
	case decoded && status == http.StatusBadGateway && isSet(e.Error):
		f.Application, f.Body = true, body
		f.Message = applicationMessage(body)
	// No shape that a server of ours answers with: a proxy may have answered.
	default:
		f.Message = fmt.Sprintf("The connection failed, or timed out. (HTTP status code %d)", status)
	}
	hint := c.remedy(status)
	// The server's own remedy is the better one. In what an action answers, a
	// hint is the action's.
	if e.Hint != "" && !f.Application {
		hint = e.Hint
	}
	return &whisk.Error{Kind: whisk.KindOfStatus(status), Err: f, Hint: hint}
}

// remedy returns what a person can do about a status, or "" where that depends
// on what was asked.
func (c *Client) remedy(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return fmt.Sprintf("the key came from %s and %s does not take it: name another with --auth, or point WSK_CONFIG_FILE at the file that has it", c.at.AuthFrom, c.base)
	case http.StatusForbidden:
		return fmt.Sprintf("the key came from %s: use one of the namespace that owns this", c.at.AuthFrom)
	case http.StatusRequestEntityTooLarge:
		return fmt.Sprintf("payloads and parameters end at %d MiB, code at %d MiB", whisk.MaxPayload>>20, whisk.MaxCode>>20)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return "try again in a while"
	case http.StatusInternalServerError:
		return "look for the code in the server's log"
	}
	return ""
}

// isSet reports whether a member is there and not null.
func isSet(v json.RawMessage) bool { return len(v) > 0 && string(v) != "null" }

// plain shows a JSON value as text: strings without their quotes.
func plain(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// applicationMessage finds the words in what a failed action answered: the
// error member, or what strings there are in it, or all of it. Our feeds name
// every fault in details beside the first, which OpenWhisk's tell alone.
func applicationMessage(result json.RawMessage) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(result, &m) != nil {
		return plain(result)
	}
	e, ok := m["error"]
	if !ok {
		return string(result)
	}
	var inner map[string]json.RawMessage
	if json.Unmarshal(e, &inner) != nil {
		return strings.Join(withDetails([]string{plain(e)}, m["details"]), "; ")
	}
	var words []string
	for _, key := range slices.Sorted(maps.Keys(inner)) { // members have no order
		var s string
		switch err := json.Unmarshal(inner[key], &s); {
		case err != nil:
		case key == "error":
			words = slices.Insert(words, 0, s)
		default:
			words = append(words, s)
		}
	}
	if words = withDetails(words, inner["details"]); len(words) == 0 {
		return string(e)
	}
	return strings.Join(words, "; ")
}

// withDetails adds the texts of a list that are not among words yet.
func withDetails(words []string, list json.RawMessage) []string {
	var details []string
	if json.Unmarshal(list, &details) != nil {
		return words // none, or not of ours
	}
	for _, d := range details {
		if !slices.Contains(words, d) {
			words = append(words, d)
		}
	}
	return words
}
