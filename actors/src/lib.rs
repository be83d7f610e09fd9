//! Who owns which state and who tells whom: thin actors over core
