package main

import "os"

// Windows sends no signals between processes; the end is abrupt there.
var stopSignal = os.Kill
