// Programs from Python.
#pragma once

#include <pybind11/pybind11.h>

#include "program.h"

namespace fastce::program {

// Reads a fastce.steps.Program field by field. Throws std::invalid_argument, with the class and the field, for a field
// that it does not know, for one that is missing, and for a class or a value that the engine cannot run.
Program read_program(const pybind11::object& object);

}  // namespace fastce::program
