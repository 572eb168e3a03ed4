// Publishes to and reads from NATS JetStream, for the comparison with Weft.
//
// Reads one command a line from standard input, as JSON, and answers each with one line of JSON on
// standard output. It ends with its input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Whatever takes longer than this has failed.
const callMax = time.Minute

type command struct {
	Do     string `json:"do"`
	Stream string `json:"stream"`
	// How events travel: async, fast, atomic or sync; how they are read: ordered or direct.
	Form string `json:"form"`
	Size int    `json:"size"`
	// Number of events; fewer are published when SecondsMax is over first.
	Events     int     `json:"events"`
	SecondsMax float64 `json:"seconds_max"`
	// Events (async), flow acknowledgements (fast) or batches (atomic) on their way.
	Window int `json:"window"`
	// Events between two flow acknowledgements, or in an atomic batch, or in a request of a reader.
	Batch   int  `json:"batch"`
	Cold    bool `json:"cold"`
	Rate    int  `json:"rate"`
	Seconds int  `json:"seconds"`
}

type answer map[string]any

type session struct {
	ctx     context.Context
	servers string
	brokers []string
	nc      *nats.Conn
	js      jetstream.JetStream
}

func main() {
	servers := flag.String("servers", "", "addresses of the servers, by commas")
	pids := flag.String("pids", "", "process ids of the servers, by commas")
	flag.Parse()
	if err := serve(*servers, strings.Split(*pids, ",")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(servers string, brokers []string) error {
	nc, js, err := connect(servers)
	if err != nil {
		return err
	}
	defer nc.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var cmd command
		if err := json.Unmarshal(lines.Bytes(), &cmd); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), callMax)
		s := session{ctx: ctx, servers: servers, brokers: brokers, nc: nc, js: js}
		found, err := s.run(cmd)
		cancel()
		if err != nil {
			found = answer{"error": err.Error()}
		}
		text, err := json.Marshal(found)
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return lines.Err()
}

func connect(servers string, options ...jetstream.JetStreamOpt) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(servers)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, options...)
	return nc, js, err
}

func (s session) run(cmd command) (answer, error) {
	switch cmd.Do {
	case "create":
		return answer{}, s.create(cmd.Stream)
	case "wait":
		return answer{}, s.wait(cmd.Stream)
	case "delete":
		return answer{}, s.js.DeleteStream(s.ctx, cmd.Stream)
	case "publish":
		return s.publish(cmd)
	case "replay":
		return s.replay(cmd)
	case "latency":
		return s.latency(cmd)
	}
	return nil, fmt.Errorf("unknown command %q", cmd.Do)
}

// Three replicas in files. A new cluster may not have elected its leader yet.
func (s session) create(stream string) error {
	config := jetstream.StreamConfig{
		Name:               stream,
		Subjects:           []string{stream},
		Storage:            jetstream.FileStorage,
		Replicas:           3,
		AllowDirect:        true,
		AllowAtomicPublish: true,
		AllowBatchPublish:  true,
	}
	for {
		ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
		_, err := s.js.CreateStream(ctx, config)
		cancel()
		if err == nil {
			return s.wait(stream)
		}
		if s.ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Waits until the cluster and a stream have their leaders, and the stream its replicas: without
// them, requests are not answered.
func (s session) wait(stream string) error {
	for s.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		found, err := s.js.Stream(ctx, stream)
		complete := err == nil && isComplete(found.CachedInfo().Cluster)
		if complete {
			// An ordered consumer is what a reader needs next, and what the cluster's leader grants.
			_, err = s.js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{})
		}
		cancel()
		if complete && err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return s.ctx.Err()
}

func isComplete(cluster *jetstream.ClusterInfo) bool {
	if cluster == nil || cluster.Leader == "" || len(cluster.Replicas) < 2 {
		return false
	}
	for _, replica := range cluster.Replicas {
		if !replica.Current {
			return false
		}
	}
	return true
}
