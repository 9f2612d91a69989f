package many_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/echod/echod/bench/internal/many"
	"github.com/echod/echod/daemon/echo"
)

// Everything that is to be measured is.
func TestMeasure(t *testing.T) {
	engine := echo.New(echo.Options{})
	cut, cancel := context.WithCancel(context.Background())
	cancel()
	defer func() {
		if err := engine.Close(cut); err != nil {
			t.Error(err)
		}
	}()
	cost, err := many.Measure(engine, echo.Spec{Protocol: echo.UDP, Listen: "127.0.0.1"}, 100)
	if err != nil {
		t.Fatal(err)
	}
	value := reflect.ValueOf(cost)
	for i := range value.NumField() {
		switch name := value.Type().Field(i).Name; name {
		case "Grown", "Kept": // what was free before may be all it takes
		default:
			if value.Field(i).Int() <= 0 {
				t.Errorf("%s is %v", name, value.Field(i))
			}
		}
	}
}
