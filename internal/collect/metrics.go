package collect

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"naru/internal/event"
	"naru/internal/obs"
	"naru/internal/web"
)

// Metrics counts what the front doors do.
type Metrics struct {
	requests   *prometheus.CounterVec // door, status
	accepted   *prometheus.CounterVec // door
	rejected   *prometheus.CounterVec // door, reason
	sent       *prometheus.CounterVec // door
	read       *prometheus.CounterVec // door
	unparsable *prometheus.CounterVec // door
	seconds    *prometheus.HistogramVec
	violations *prometheus.CounterVec // type, rule, mode
}

// NewMetrics registers the metrics of the doors.
func NewMetrics(reg *obs.Registry) *Metrics {
	return &Metrics{
		requests:   reg.CounterVec("naru_door_requests_total", "Requests answered, by front door and HTTP status.", "door", "status"),
		accepted:   reg.CounterVec("naru_door_events_accepted_total", "Events acknowledged and stored in their stream.", "door"),
		rejected:   reg.CounterVec("naru_door_events_rejected_total", "Events acknowledged and stored in the stream rejected, by reason.", "door", "reason"),
		sent:       reg.CounterVec("naru_door_body_sent_bytes_total", "Bytes of bodies as they came over the wire.", "door"),
		read:       reg.CounterVec("naru_door_body_bytes_total", "Bytes of bodies once decompressed.", "door"),
		unparsable: reg.CounterVec("naru_door_times_unparsable_total", "Events whose time could not be read; their time of receipt stands in.", "door"),
		seconds:    reg.HistogramVec("naru_door_request_seconds", "Time from the headers of a request to its answer.", "door"),
		violations: reg.CounterVec("naru_contract_violations_total", "Ways in which stored events break their contract, by event type and rule; mode enforce: the event was refused, observe: it was kept.", "type", "rule", "mode"),
	}
}

// reasons are the values of the label reason; a reason that is not here counts
// as "other", so that the label stays bounded.
var reasons = [...]event.Reason{event.NotJSON, event.NotObject, event.TooLarge, event.BadAttribute, event.BadContract}

// DoorMetrics are the metrics of one door, looked up beforehand.
type DoorMetrics struct {
	m          *Metrics
	door       string
	accepted   prometheus.Counter
	rejected   [len(reasons) + 1]prometheus.Counter
	sent, read prometheus.Counter
	unparsable prometheus.Counter
	seconds    prometheus.Observer
	statuses   [600]atomic.Pointer[prometheus.Counter]
}

// Door returns the metrics of the door of that name.
func (m *Metrics) Door(name string) *DoorMetrics {
	d := &DoorMetrics{
		m: m, door: name,
		accepted:   m.accepted.WithLabelValues(name),
		sent:       m.sent.WithLabelValues(name),
		read:       m.read.WithLabelValues(name),
		unparsable: m.unparsable.WithLabelValues(name),
		seconds:    m.seconds.WithLabelValues(name),
	}
	for i, r := range reasons {
		d.rejected[i] = m.rejected.WithLabelValues(name, string(r))
	}
	d.rejected[len(reasons)] = m.rejected.WithLabelValues(name, "other")
	return d
}

// Answered counts a request with its status and duration.
func (d *DoorMetrics) Answered(status int, took time.Duration) {
	if status < 0 || status >= len(d.statuses) {
		status = 0
	}
	c := d.statuses[status].Load()
	if c == nil {
		counter := d.m.requests.WithLabelValues(d.door, strconv.Itoa(status))
		c = &counter
		d.statuses[status].Store(c)
	}
	(*c).Inc()
	d.seconds.Observe(took.Seconds())
}

// reasonIndex is the place of a reason among the rejected counters.
func reasonIndex(reason event.Reason) int {
	for i, r := range reasons {
		if r == reason {
			return i
		}
	}
	return len(reasons)
}

func registerBudget(reg *obs.Registry, b *web.Budget) {
	reg.GaugeFunc("naru_door_in_flight_bytes", "Bytes of bodies in memory.", func() float64 { return float64(b.Used()) })
}
