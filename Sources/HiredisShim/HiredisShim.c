#include "HiredisShim.h"
