// What a measurement found: rate, times, and what processes cost.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Unit of the processor times in /proc.
const ticksPerSecond = 100

// Processor time that this process and the servers have used, in seconds.
func (s session) cpuSeconds() (float64, error) {
	ticks := 0
	for _, pid := range append([]string{"self"}, s.brokers...) {
		text, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return 0, err
		}
		// utime and stime, the 12th and 13th field behind the program's name.
		fields := strings.Fields(string(text[strings.LastIndex(string(text), ") ")+2:]))
		for _, field := range fields[11:13] {
			number, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			ticks += number
		}
	}
	return float64(ticks) / ticksPerSecond, nil
}

// Measures so many events of so many bytes; `work` tells how many there were.
func (s session) measured(size int, work func() (int, error)) (answer, error) {
	before, err := s.cpuSeconds()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	events, err := work()
	if err != nil {
		return nil, err
	}
	seconds := time.Since(begin).Seconds()
	after, err := s.cpuSeconds()
	if err != nil {
		return nil, err
	}
	payload := float64(events) * float64(size)
	return answer{
		"size":                 size,
		"events":               events,
		"seconds":              seconds,
		"events_per_second":    float64(events) / seconds,
		"megabytes_per_second": payload / seconds / 1e6,
		"cpu_seconds_per_gb":   (after - before) / (payload / 1e9),
	}, nil
}

func percentiles(times []time.Duration) answer {
	slices.Sort(times)
	at := func(share float64) int64 {
		place := min(int(share*float64(len(times))), len(times)-1)
		return times[place].Microseconds()
	}
	return answer{"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "p999": at(0.999), "max": at(1)}
}

// Makes the kernel forget what files hold. Needs root.
func dropCaches() error {
	if err := exec.Command("sync").Run(); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("a cold read needs root: %w", err)
	}
	return nil
}
