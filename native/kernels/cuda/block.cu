// The element-wise parts of a transformer block: see block.cc.
