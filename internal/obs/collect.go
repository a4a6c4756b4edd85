package obs

import "github.com/prometheus/client_golang/prometheus"

// Desc describes a metric whose values are asked for at every scrape.
type Desc struct {
	Name, Help string
	Labels     []string
	Counter    bool // else a gauge
}

// Emit gives one value of a described metric, with its labels in order.
type Emit func(name string, value float64, labels ...string)

// Collect registers metrics that belong together: give is called at every
// scrape and emits all their values as of one moment. It must be quick and
// safe for concurrent use.
func (r *Registry) Collect(descs []Desc, give func(Emit)) {
	c := &collected{give: give, metrics: make(map[string]metric, len(descs))}
	for _, d := range descs {
		kind := prometheus.GaugeValue
		if d.Counter {
			kind = prometheus.CounterValue
		}
		c.metrics[d.Name] = metric{prometheus.NewDesc(d.Name, d.Help, d.Labels, nil), kind}
	}
	r.MustRegister(c)
}

type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

type collected struct {
	metrics map[string]metric
	give    func(Emit)
}

// Describe implements prometheus.Collector.
func (c *collected) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collected) Collect(out chan<- prometheus.Metric) {
	c.give(func(name string, value float64, labels ...string) {
		m := c.metrics[name]
		v, err := prometheus.NewConstMetric(m.desc, m.kind, value, labels...)
		if err != nil {
			v = prometheus.NewInvalidMetric(m.desc, err)
		}
		out <- v
	})
}
