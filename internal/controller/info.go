package controller

import (
	"net/http"

	"github.com/millrace/millrace/internal/whisk"
)

// sequenceLength is how many actions a sequence could have.
const sequenceLength = 50

// runtimeJSON is a kind of action as the service describes it.
type runtimeJSON struct {
	Kind        string `json:"kind"`
	Image       string `json:"image"`
	Deprecated  bool   `json:"deprecated"`
	Default     bool   `json:"default"`
	Attached    bool   `json:"attached"`
	RequireMain bool   `json:"requireMain"`
}

// description is the answer of /: what this service is, allows and runs. Its
// first lines are OpenWhisk's, which clients and tests look for. Bytes and
// milliseconds, unlike the limits of a namespace, which are in MB: both are as
// OpenWhisk has them.
func (a *api) description() any {
	runtimes := map[string][]runtimeJSON{}
	for family, list := range a.Runtimes.Families() {
		for _, r := range list {
			runtimes[family] = append(runtimes[family], runtimeJSON{
				Kind: r.Kind, Image: r.Image.String(), Deprecated: r.Deprecated, Default: r.Default,
				Attached: r.Attached != nil, RequireMain: r.RequireMain,
			})
		}
	}
	limits := map[string]int{
		"actions_per_minute": perMinute, "triggers_per_minute": perMinute,
		"concurrent_actions": userConcurrency, "sequence_length": sequenceLength,
	}
	for name, of := range map[string]struct {
		whisk.Range
		unit int
	}{
		"duration": {whisk.TimeoutRange, 1},
		"memory":   {whisk.MemoryRange, 1 << 20},
		"logs":     {whisk.LogsRange, 1 << 20},
	} {
		// All namespaces have the defaults.
		for _, prefix := range []string{"", "default_"} {
			limits[prefix+"min_action_"+name] = of.Min * of.unit
			limits[prefix+"max_action_"+name] = of.Max * of.unit
		}
	}
	return map[string]any{
		"description": "OpenWhisk",
		"support": map[string]string{
			"github": "https://github.com/apache/openwhisk/issues", "slack": "http://slack.openwhisk.org",
		},
		"api_paths": []string{apiRoot}, "limits": limits, "runtimes": runtimes,
	}
}

// version is the answer of /api/v1.
func (a *api) version() any {
	return map[string]any{
		"description": "OpenWhisk API", "api_version": "1.0.0", "api_version_path": "v1",
		"build": a.Built, "buildno": a.Version,
		"swagger_paths": map[string]string{"ui": "/docs", "api-docs": "/api-docs"},
	}
}

// getRoot has the bare content type on purpose: wskdeploy falls back to a list
// of runtimes of its own when a charset is told in another spelling than its.
func (a *api) getRoot(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, typeJSON, a.root)
}

// getInfo answers strangers too.
func (a *api) getInfo(w http.ResponseWriter, _ *http.Request) {
	restCORS(w.Header())
	write(w, http.StatusOK, typeJSON, a.info)
}

// ping is for load balancers.
func (a *api) ping(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, typeText, []byte("pong"))
}
