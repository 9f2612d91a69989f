// Package proc reads what processes cost: their CPU time and their memory, as Linux tells them. It starts and ends none.
// Only the benchmark's programs call it.
package proc
