// Changes of basis of a whole float layer and of what is known about its inputs, before it is
// quantized. The layer computes the same.
#pragma once

#include "model/weights.h"
#include "quant/site_statistics.h"

namespace atom {

// Moves range from activations to weights, or back, at the sites whose input can be scaled for
// nothing: by the norm in front of it, or by up_proj's rows. Where the router reads that norm,
// its columns take the factors too. strength: as balance_factors() has it.
void balance_layer(PackedLayer& layer, LayerStatistics& statistics, double strength);

// Puts every input's channels in ascending order of salience, outliers last (Atom, section 4.1).
// One order for the input that experts share; for down's an order an expert, since their hidden
// channels have nothing in common and the rows of gate and up take any order for nothing.
void reorder_layer(PackedLayer& layer, LayerStatistics& statistics);

}  // namespace atom
