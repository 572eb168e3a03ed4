// Publishing: each way that the client library and its extension offer.
package main

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// Random, so that neither disk nor wire can compress it.
func payloadOf(size int) []byte {
	payload := make([]byte, size)
	_, _ = rand.Read(payload) // never fails
	return payload
}

// Tells whether one more event may be published.
type budget struct {
	events int
	end    time.Time
}

func budgetOf(cmd command) budget {
	return budget{cmd.Events, time.Now().Add(time.Duration(cmd.SecondsMax * float64(time.Second)))}
}

func (b budget) has(published int) bool {
	// Asking for the time costs something.
	return published < b.events && (published%64 != 0 || time.Now().Before(b.end))
}

func (s session) publish(cmd command) (answer, error) {
	times := make([]time.Duration, 0, cmd.Events)
	payload := payloadOf(cmd.Size)
	found, err := s.measured(cmd.Size, func() (int, error) {
		switch cmd.Form {
		case "async":
			return s.async(cmd, payload)
		case "fast":
			return s.fast(cmd, payload)
		case "atomic":
			return s.atomic(cmd, payload)
		case "sync":
			return s.sync(cmd, payload, &times)
		}
		return 0, fmt.Errorf("unknown form %q", cmd.Form)
	})
	if err != nil {
		return nil, err
	}
	found["form"], found["window"], found["batch"] = cmd.Form, cmd.Window, cmd.Batch
	if len(times) > 0 {
		found["latency_us"] = percentiles(times)
	}
	return found, nil
}

// One message each, so many on their way.
func (s session) async(cmd command, payload []byte) (int, error) {
	var failures atomic.Int64
	nc, js, err := connect(s.servers,
		jetstream.WithPublishAsyncMaxPending(cmd.Window),
		jetstream.WithPublishAsyncErrHandler(func(jetstream.JetStream, *nats.Msg, error) {
			failures.Add(1)
		}))
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	published := 0
	for b := budgetOf(cmd); b.has(published); published++ {
		if _, err := js.PublishAsync(cmd.Stream, payload, jetstream.WithStallWait(callMax)); err != nil {
			return 0, err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
	if failed := failures.Load(); failed > 0 {
		return 0, fmt.Errorf("%d events were not acknowledged", failed)
	}
	return published, nil
}

// Fast ingest: acknowledgements of the flow, and one of all at the end.
func (s session) fast(cmd command, payload []byte) (int, error) {
	publisher, err := jetstreamext.NewFastPublisher(s.js, jetstreamext.FastPublishFlowControl{
		Flow:               uint16(cmd.Batch),
		MaxOutstandingAcks: uint16(cmd.Window),
		AckTimeout:         callMax,
	})
	if err != nil {
		return 0, err
	}
	published := 1
	for b := budgetOf(cmd); b.has(published); published++ {
		if _, err := publisher.Add(cmd.Stream, payload); err != nil {
			return 0, err
		}
	}
	ack, err := publisher.Commit(s.ctx, cmd.Stream, payload)
	if err == nil && ack.BatchSize != uint64(published) {
		err = fmt.Errorf("%d of %d events were acknowledged", ack.BatchSize, published)
	}
	return published, err
}

// Atomic batches, several of them at once.
func (s session) atomic(cmd command, payload []byte) (int, error) {
	var published atomic.Int64
	var all sync.WaitGroup
	failures := make(chan error, cmd.Window)
	b := budgetOf(cmd)
	for range cmd.Window {
		all.Go(func() {
			for time.Now().Before(b.end) && published.Add(int64(cmd.Batch)) <= int64(b.events) {
				if err := s.batch(cmd, payload); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failures:
		return 0, err
	default:
	}
	info, err := s.stored(cmd.Stream)
	return info, err
}

func (s session) batch(cmd command, payload []byte) error {
	messages := make([]*nats.Msg, cmd.Batch)
	for place := range messages {
		messages[place] = &nats.Msg{Subject: cmd.Stream, Data: payload, Header: nats.Header{}}
	}
	_, err := jetstreamext.PublishMsgBatch(s.ctx, s.js, messages)
	return err
}

// The number of events in a stream: of a new one, those that were just published.
func (s session) stored(name string) (int, error) {
	stream, err := s.js.Stream(s.ctx, name)
	if err != nil {
		return 0, err
	}
	return int(stream.CachedInfo().State.Msgs), nil
}

// One after the other.
func (s session) sync(cmd command, payload []byte, times *[]time.Duration) (int, error) {
	published := 0
	for b := budgetOf(cmd); b.has(published); published++ {
		begin := time.Now()
		if _, err := s.js.Publish(s.ctx, cmd.Stream, payload); err != nil {
			return 0, err
		}
		*times = append(*times, time.Since(begin))
	}
	return published, nil
}
