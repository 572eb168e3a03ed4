// From the moment when an event is due to the moment when a reader that follows has it.
package main

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Events of the first second are not counted.
const warmUpSeconds = 1

func (s session) latency(cmd command) (answer, error) {
	total := cmd.Rate * (warmUpSeconds + cmd.Seconds)
	skipped := cmd.Rate * warmUpSeconds
	gap := time.Second / time.Duration(cmd.Rate)
	times := make([]time.Duration, 0, total)
	done := make(chan struct{})
	var begin atomic.Pointer[time.Time]
	read := 0
	nc, js, err := connect(s.servers)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	consumer, err := js.OrderedConsumer(s.ctx, cmd.Stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	consuming, err := consumer.Consume(func(jetstream.Msg) {
		if read >= skipped {
			times = append(times, time.Since(*begin.Load())-time.Duration(read)*gap)
		}
		if read++; read == total {
			close(done)
		}
	})
	if err != nil {
		return nil, err
	}
	defer consuming.Stop()
	time.Sleep(500 * time.Millisecond)

	found, err := s.measured(cmd.Size, func() (int, error) {
		start := time.Now().Add(100 * time.Millisecond)
		begin.Store(&start)
		if err := s.paced(cmd, total, start, gap); err != nil {
			return 0, err
		}
		select {
		case <-done:
			return total, nil
		case <-s.ctx.Done():
			return 0, fmt.Errorf("%d of %d events came: %w", read, total, s.ctx.Err())
		}
	})
	if err != nil {
		return nil, err
	}
	found["rate"], found["events"], found["latency_us"] = cmd.Rate, len(times), percentiles(times)
	return found, nil
}

// Publishes each event when it is due, from a thread of its own: timers of the runtime are coarser.
func (s session) paced(cmd command, total int, start time.Time, gap time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var failures atomic.Int64
	nc, js, err := connect(s.servers,
		jetstream.WithPublishAsyncMaxPending(65_536),
		jetstream.WithPublishAsyncErrHandler(func(jetstream.JetStream, *nats.Msg, error) {
			failures.Add(1)
		}))
	if err != nil {
		return err
	}
	defer nc.Close()
	payload := payloadOf(cmd.Size)
	for number := range total {
		due := start.Add(time.Duration(number) * gap)
		for wait := time.Until(due); wait > 0; wait = time.Until(due) {
			rest := syscall.NsecToTimespec(wait.Nanoseconds())
			// A signal interrupts it: then there is more to wait.
			_ = syscall.Nanosleep(&rest, nil)
		}
		if _, err := js.PublishAsync(cmd.Stream, payload); err != nil {
			return err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	if failed := failures.Load(); failed > 0 {
		return fmt.Errorf("%d events were not acknowledged", failed)
	}
	return nil
}
