package web

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudgetRefusesWhatIsNotFree(t *testing.T) {
	b := NewBudget(6400)
	if b.Reserve(5601) {
		t.Error("more than a share passes")
	}
	if !b.Reserve(5600) || b.Reserve(101) {
		t.Error("a share must pass, and then nothing large")
	}
	for range 8 {
		if !b.Reserve(100) {
			t.Error("a small body is shut out by a large one")
		}
	}
	if b.Reserve(1) || b.Used() != 6400 {
		t.Errorf("used %d of %d", b.Used(), b.Limit())
	}
	b.Release(6400)
	if b.Used() != 0 {
		t.Errorf("used %d at the end", b.Used())
	}
}

func TestBudgetGrowWaitsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(6400)
		for range 2 {
			if !b.Reserve(2800) {
				t.Fatal("two halves do not fit")
			}
		}
		got := make(chan bool)
		go func() { got <- b.Grow(nil, 2800, 2800) }()
		synctest.Wait()
		// The first waits; the second is refused at once, and so are new ones.
		if b.Grow(nil, 2800, 2800) || b.Reserve(101) {
			t.Fatal("a second one may take what the first waits for")
		}
		b.Release(2800)
		if !<-got {
			t.Fatal("the first did not get what came free")
		}
		if b.Used() != 5600 {
			t.Errorf("used %d", b.Used())
		}
		b.Release(5600)
	})
}

func TestBudgetGrowGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(6400)
		b.Reserve(5600)
		began := time.Now()
		if b.Grow(nil, 1000, 1000) {
			t.Fatal("got what is not free")
		}
		if waited := time.Since(began); waited != growWait {
			t.Errorf("waited %v, want %v", waited, growWait)
		}
		done := make(chan struct{})
		close(done)
		if b.Grow(done, 1000, 1000) {
			t.Fatal("got what is not free")
		}
		if !b.Reserve(100) {
			t.Error("a wait that ended still keeps others out")
		}
		b.Release(5700)
		if b.Used() != 0 {
			t.Errorf("used %d at the end", b.Used())
		}
	})
}

// However requests come, grow and go: never over the limit, and all end.
func TestBudgetConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(6400)
		var wg sync.WaitGroup
		granted := make([]int, 50)
		for i := range granted {
			wg.Go(func() {
				for try := range 40 {
					n := int64(100 + (i*37+try*101)%2000)
					if !b.Reserve(n) {
						time.Sleep(time.Millisecond)
						continue
					}
					held := n
					for held < 5600 {
						more := min(held, 5600-held)
						if !b.Grow(nil, held, more) {
							break
						}
						held += more
					}
					if used := b.Used(); used > 6400 {
						t.Errorf("used %d", used)
					}
					if held == 5600 {
						granted[i]++
					}
					time.Sleep(time.Millisecond)
					b.Release(held)
				}
			})
		}
		wg.Wait()
		total := 0
		for _, n := range granted {
			total += n
		}
		if b.Used() != 0 || total == 0 {
			t.Errorf("used %d at the end; %d grew to their full size", b.Used(), total)
		}
	})
}
