package app

import (
	"html/template"
	"net/http"

	"naru/internal/config"
	"naru/internal/web"
)

// page is what a person finds who opens the address in a browser.
func page(version string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		web.Head(w.Header(), "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		// The client may have gone: nobody is left to tell.
		_ = pageText.Execute(w, struct{ Version, URL, Settings string }{version, "http://" + r.Host, config.FileName})
	})
}

var pageText = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>naru</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #222; background: #fff }
pre { background: #f4f4f2; padding: .7rem 1rem; overflow-x: auto; border-radius: 4px }
td { padding: .15rem 1.2rem .15rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1b1b1b } pre { background: #2a2a2a } a { color: #8ab4f8 } }
</style>
<h1>naru</h1>
<p>naru takes in events, keeps them durably, turns them into Apache Iceberg tables and answers SQL.
This is version {{.Version}}.</p>
<h2>Send an event</h2>
<pre>curl -d '{"type": "page_view", "path": "/pricing"}' {{.URL}}/v1/events</pre>
<p>The answer comes once the event is on disk. Send one object, a JSON array, or NDJSON.</p>
<h2>Ask</h2>
<pre>curl --data-binary 'select _time, path from page_view' {{.URL}}/v1/sql</pre>
<p>Answers are JSON; <code>Accept: text/csv</code> gives CSV.</p>
<h2>All paths</h2>
<table>
<tr><td><code>POST /v1/events</code><td>events: JSON, NDJSON, CloudEvents
<tr><td><code>POST /v1/validate</code><td>the same, judged and not stored: what would become of each event
<tr><td><code>POST /v1/sql</code><td>SQL as text/plain or {"sql": "..."}
<tr><td><a href="/v1/status"><code>GET /v1/status</code></a><td>what every stream and table has and lacks
<tr><td><a href="/v1/streams/events/events?last=10"><code>GET /v1/streams/events/events</code></a><td>events of a stream; <code>?last=10</code>, <code>?follow=true</code>
<tr><td><a href="/healthz"><code>GET /healthz</code></a><td>the process is alive
<tr><td><a href="/readyz"><code>GET /readyz</code></a><td>events can be taken
<tr><td><a href="/metrics"><code>GET /metrics</code></a><td>for Prometheus
</table>
<p>Settings are in <code>{{.Settings}}</code> in the server's folder; <code>naru help</code> shows the commands.</p>
</html>
`))
