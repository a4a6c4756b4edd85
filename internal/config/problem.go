package config

import "naru/internal/problem"

// Problem is one thing that is wrong in a configuration file.
type Problem = problem.Problem

// Problems are all that is wrong; as an error, one a line.
type Problems = problem.List
