"""The cases of operators.py: for every operator each kind of argument it takes, and what it must refuse."""
from operators import Bad, Big, Cases, Spec, Typed, U
from operator_reference import BINARY, FUNCTIONS, METHODS, UNARY

INFINITE = Spec("float64", (4,), [float("inf"), float("-inf"), float("nan"), 0.5])


def method(name):
    return Cases("Tensor." + name, METHODS[name])


def function(name):
    return Cases(name, FUNCTIONS[name])


def unary():
    for name in UNARY:
        c = method(name)
        make = c.positive if name in ("log", "sqrt", "rsqrt") else (lambda *n,
                **o: c.f(*n, low=-0.9, high=0.9, **o)) if name == "erfinv" else c.f
        c.ok(make(2, 3))
        c.ok(make(2, 3, dtype="float32"))
        c.ok(make(3, 2).then("permute", [1, 0]))
        c.ok(make(2, 4).then("slice", 1, 0, 4, 2))
        c.ok(make())
        c.ok(make(0, 3))
        if name != "erfinv":
            c.ok(make(4, dtype="bfloat16"), loose=1e-2)
            c.ok(INFINITE, track=False)
        if name not in ("relu", "round", "floor", "erfinv", "square"):
            c.ok(c.i(4, low=1, high=9))
        c.no(Bad("disposed"))
    for name in ("neg", "sign", "abs"):
        method(name).ok(method(name).i(5, low=-4))
    method("neg").no(method("neg").b(3))
    for name in ("silu", "gelu"):
        c = method(name)
        for x in (c.f(2, 3), c.f32(2, 3), c.strided(2, 3), c.f(), c.f(0)):
            c.ok(x)
        c.ok(c.f(4, dtype="bfloat16"), loose=1e-2)
        c.no(c.i(3))
        c.no(Bad("disposed"))
    c = method("gelu")
    c.ok(c.f(5), "tanh")
    c.ok(c.f32(2, 2), "none")
    c.no(c.f(5), "quick")
    c.no(c.f(5), Bad("object"))
    c = method("isfinite")
    for x in (INFINITE, c.i(3), c.f32(0, 2), c.f().then("expand", [2])):
        c.ok(x, track=False)
    c = method("logicalNot")
    for x in (c.b(2, 3), c.i(4, high=2), c.f32(0), INFINITE):
        c.ok(x, track=False)


def binary():
    ordering = ("lt", "le", "gt", "ge", "eq", "ne")
    for name in BINARY + ("add_", "sub_", "mul_", "div_"):
        c = method(name)
        first = c.positive if name == "pow" else c.f
        second = c.positive if name in ("div", "div_", "remainder") else c.f
        c.ok(first(2, 3), second(2, 3))
        c.ok(first(2, 3), second(3))
        c.ok(first(2, 3, dtype="float32"), second(2, 1, dtype="float32"), loose=2e-6 if name == "pow" else None)
        c.ok(c.strided(2, 3, low=0.2, high=2.0), second(3, 2).then("permute", [1, 0]))
        c.ok(first(2, 2), second())
        c.ok(first(0, 3), second(3))
        c.ok(first(2, 3), 2)
        c.ok(first(2, 3), 2.5)
        c.ok(first(2, dtype="float32"), Big(3))
        if not name.endswith("_"):
            c.ok(first(2, 1, dtype="float32"), second(1, 2), loose=2e-6 if name == "pow" else None)   # float32 with float64
            c.ok(c.i(2, 3, low=1), 2)                                                 # a number is a double: the result is float32
            c.ok(first(), second(2))
            c.ok(c.i(2, low=1, dtype="int32"), second(2, dtype="float32"), loose=2e-6 if name == "pow" else None)
        c.ok(c.i(4, low=1, dtype="float32" if name == "div_" else "int64"), Big(3))
        if name != "div_":
            c.ok(c.i(4, low=1), c.i(4, low=1, high=4, dtype="int32"))
        if not name.startswith("sub"):
            c.ok(Spec("float32", (3,), [1.5, 2, 4]), Spec("bool", (3,), [1, 1, 1]), track=False)
        c.no(c.f(2, 3), c.f(2, 2))
        c.no(c.f(2), Bad("object"))
        c.no(c.f(2), Bad("string"))
        c.no(c.f(2), Bad("disposed"))
        c.no(Bad("disposed"), c.f(2))
        c.no(c.f(2), U, ask=False)
        c.no(c.f(2), None, ask=False)
        if name.startswith("sub"):
            c.no(c.b(3), c.b(3))
        if name.endswith("_"):
            c.no(c.f(3), c.f(2, 3))                                                   # would have to grow
            c.no(c.i(3), c.f(3))                                                      # a float does not fit into integers
            c.no(c.i(3), 2)
        elif name in ordering:
            c.ok(INFINITE, INFINITE, track=False)
            c.ok(c.i(6, high=3), c.i(6, high=3), track=False)
            c.ok(c.b(4), c.b(4), track=False)
    c = method("pow")
    c.ok(c.f(4), 2)
    c.ok(c.f(4), 3)
    c.ok(c.positive(3), -0.5)
    c.ok(c.i(3, low=1), Big(2))
    method("remainder").ok(Spec("float64", (4,), [-3.5, 3.5, -3.5, 3.5]), Spec("float64", (4,), [2, 2, -2, -2]))
    method("div").ok(method("div").i(3), method("div").i(3, low=1))                   # true division
    for name in ("logicalAnd", "logicalOr"):
        c = method(name)
        for a, b in ((c.b(2, 3), c.b(2, 3)), (c.b(2, 3), c.b(3)), (c.i(3, high=2), c.f(3)), (c.b(0), c.b(1))):
            c.ok(a, b, track=False)
        c.no(c.b(2), c.b(3))
        c.no(c.b(2), 1, ask=False)
        c.no(c.b(2), Bad("disposed"))
    for name in ("minimum", "maximum"):
        c = function(name)
        for a, b in ((c.f(2, 3), c.f(2, 3)), (c.f32(2, 1), c.f32(3)), (c.i(4), c.i(4)), (c.f(2), c.f32(2)), (c.f(0), c.f(1)),
                     (c.f(), c.strided(3))):
            c.ok(a, b)
        c.ok(INFINITE, c.f(4), track=False)
        c.no(c.f(2), c.f(3))
        c.no(c.f(2), 1, ask=False)


def elementwise():
    for name in ("clamp", "clamp_"):
        c = method(name)
        for arguments in ((-0.5, 0.5), (U, 0.3), (-0.2,), (-0.2, U), (1, -1)):
            c.ok(c.f(2, 4), *arguments)
        c.ok(c.strided(3, 2), 0, 1)
        c.ok(c.f32(4), -0.5, 0.25)
        c.ok(c.f(0), 0, 1)
        c.ok(c.f(), 0, 0.1)
        c.ok(c.f(4, dtype="bfloat16"), -0.5, 0.5)
        c.no(c.f(3))
        c.no(c.f(3), Bad("string"))
        c.no(Bad("disposed"), 0, 1)
    method("clamp").ok(method("clamp").i(5), 1.5, 3)                                  # doubles: the result is float32
    for name in ("lerp", "lerp_"):
        c = method(name)
        for arguments in ((c.f(2, 3), c.f(2, 3), 0.25), (c.f(2, 3), c.f(3), 0.75), (c.f32(3), c.f32(3), 0.001),
                          (c.f(2, 3), c.f(2, 3), c.f(2, 3)),
                          (c.strided(2, 3), c.f(2, 3), c.f()), (c.f(0), c.f(0), 0.5)):
            c.ok(*arguments)
        c.no(c.f(2), c.f(3), 0.5)
        c.no(c.f(2), c.f32(2), 0.5)
        c.no(c.i(2), c.i(2), 0.5)
        c.no(c.f(2), 1, 0.5, ask=False)
        c.no(c.f(2), c.f(2), Bad("object"))
    c = method("maskedFill")
    for arguments in ((c.f(2, 3), c.b(2, 3), -1), (c.f(2, 3), c.b(3), c.f()), (c.f32(2, 3), c.b(2, 1), float("-inf")),
                      (c.strided(2, 3), c.b(), 0.5),
                      (c.i(3), c.b(3), Big(7)), (c.f(0), c.b(0), 1)):
        c.ok(*arguments)
    c.no(c.f(2), c.b(3), 1)
    c.no(c.f(2), c.f(2), 1)
    c.no(c.f(2), c.b(2), c.f(2))
    c.no(c.f(2), c.b(2), Bad("object"))
    c = function("addcmul")
    for arguments in ((c.f(2, 3), c.f(2, 3), c.f(2, 3)), (c.f(2, 3), c.f(3), c.f(2, 1), 0.5), (c.f32(3), c.f32(3), c.f32(), -2),
                      (c.f(0), c.f(0), c.f(0))):
        c.ok(*arguments)
    c.no(c.f(2), c.f(3), c.f(2))
    c.no(c.f(2), c.f(2), 1, ask=False)
    c = function("where")
    for arguments in ((c.b(2, 3), c.f(2, 3), c.f(2, 3)), (c.b(3), c.f(2, 3), c.f()), (c.b(2, 1), c.f(3), 0.5), (c.b(2), 1, c.f32(2)),
                      (c.b(2), 1, 2),
                      (c.b(3, 2).then("permute", [1, 0]), c.strided(2, 3), c.f32(3)), (c.b(0), c.f(0), 1), (c.b(2), c.i(2), 7)):
        c.ok(*arguments)
    c.no(c.b(2), c.f(3), c.f(2))
    c.no(c.f(2), c.f(2), c.f(2))
    c.no(c.b(2), c.f(2), Bad("object"))
    c.no(c.b(2), c.f(2), Bad("disposed"))
    c = method("copy_")
    for arguments in ((c.f(2, 3), c.f(2, 3)), (c.f(2, 3), c.f(3)), (c.f32(2), c.f(2)), (c.i(3), c.f(3)), (c.strided(2, 2), c.i(2, 2)),
                      (c.f(0), c.f(1)),
                      (c.f(3, dtype="bfloat16"), c.f(3))):
        c.ok(*arguments, track=False)
    c.ok(c.f(2, 3), c.f(2, 3))
    c.no(c.f(3), c.f(2))
    c.no(c.f(3), 1, ask=False)
    c = method("fill_")
    for arguments in ((c.f(2, 3), 1.5), (c.f32(2), c.f()), (c.i(3), Big(4)), (c.strided(2, 2), -1), (c.f(0), 1), (c.b(2), 1)):
        c.ok(*arguments, track=False)
    c.no(c.f(3), c.f(3))
    c.no(c.f(3), Bad("string"))
    c = method("zero_")
    for x in (c.f(2, 3), c.f32(), c.i(3), c.b(2), c.strided(2, 2), c.f(0)):
        c.ok(x, track=False)
    c.no(Bad("disposed"))


def reductions():
    for name in ("sum", "mean"):
        c = method(name)
        for arguments in ((), (0,), (1,), (-1,), ([0, 2],), (1, True), ([-1, 0], True), (U, True), (2, False)):
            c.ok(c.f(2, 3, 4), *arguments)
        c.ok(c.strided(3, 4), 0)
        c.ok(c.f32(2, 3), -1, True)
        c.ok(c.f())
        c.ok(c.f(0, 3), 1)
        c.ok(c.f(0, 3), 0, track=False)
        c.ok(c.f(3, 5, dtype="bfloat16"), 1, loose=2e-2)
        c.no(c.f(2, 3), 2)
        c.no(c.f(2, 3), -3)
        c.no(c.f(2, 3), [0, 0])
        c.no(c.f(2, 3), Bad("fraction"))
        c.no(c.f(2, 3), Bad("object"))
        c.no(c.f(2, 3), 0, Bad("string"))
        c.no(Bad("disposed"))
    method("sum").ok(method("sum").i(2, 3), 0)
    method("sum").ok(method("sum").i(2, 3, dtype="int32"))
    method("sum").ok(method("sum").b(2, 3), 1)
    method("mean").no(method("mean").i(3))
    for name in ("std", "var"):
        c = method(name)
        for arguments in ((), (0,), (-1, True), ([0, 1],), (1, False, 0), (U, False, 0), (2, True, 2)):
            c.ok(c.f(3, 3, 4), *arguments)
        c.ok(c.f32(4, 5), 1)
        c.ok(c.strided(3, 4), 0)
        c.no(c.i(3))
        c.no(c.f(2, 3), 2)
        c.no(c.f(2, 3), 0, False, Bad("string"))
    c = method("norm")
    for arguments in ((), (1,), (2, 0), (2, -1, True), (float("inf"),), (3, [0, 1]), (0.5, 1), (0,)):
        c.ok(c.f(2, 3, 4), *arguments)
    c.ok(c.f32(3, 4), 2, 1)
    c.ok(c.strided(2, 3))
    c.ok(c.f(), 2)
    c.ok(c.f(0), 2)
    c.no(c.i(3))
    c.no(c.f(2, 3), 2, 5)
    c.no(c.f(2, 3), Bad("object"))
    c = method("logsumexp")
    for x, *arguments in ((c.f(2, 3), 0), (c.f(2, 3, 4), [0, 2], True), (c.f32(2, 3), -1), (c.strided(2, 3), 1), (c.f(), 0)):
        c.ok(x, *arguments)
    c.no(c.f(2, 3), 2)
    c.no(c.f(2, 3), Bad("object"))
    for name in ("all", "any"):
        c = method(name)
        for x in (c.b(2, 3), Spec("bool", (2,), [1, 1]), Spec("bool", (2,), [0, 0]), c.b(0), c.f(3), c.i(3, high=1), c.b()):
            c.ok(x, track=False)
        c.no(Bad("disposed"))
    for name in ("max", "min"):
        c = method(name)
        c.ok(c.distinct(2, 3))
        c.ok(c.distinct())
        c.ok(c.i(6))
        c.ok(INFINITE, track=False)
        for arguments in ((0,), (-1,), (1, True)):
            c.ok(c.distinct(2, 3, 2), *arguments)
        c.ok(c.distinct(4, 3, dtype="float32").then("permute", [1, 0]), 0)
        c.ok(c.distinct(5).then("slice", 0, 0, 5, 2), 0)
        c.no(c.f(0))
        c.no(c.f(2, 0), 1)
        c.no(c.f(2, 3), 2)
        c.no(c.f(2, 3), Bad("fraction"))
    for name in ("amax", "amin"):
        c = method(name)
        for arguments in ((), (0,), (-1, True), ([0, 1],), (U, True)):
            c.ok(c.distinct(2, 3, 2), *arguments)
        c.ok(c.i(2, 3), 1)
        c.ok(c.distinct(4, 3, dtype="float32").then("permute", [1, 0]), 0)
        c.no(c.f(0, 2), 0)
        c.no(c.f(2, 3), 4)
    for name in ("argmax", "argmin"):
        c = method(name)
        for arguments in ((), (0,), (-1,), (1, True)):
            c.ok(c.distinct(2, 3, 2), *arguments)
        c.ok(c.distinct(3, 2).then("permute", [1, 0]), 1)
        c.ok(c.distinct(4, dtype="float32"))
        c.ok(c.distinct())
        c.no(c.f(0))
        c.no(c.f(2, 3), 2)
        c.no(c.f(2, 3), Bad("string"))
    for name in ("argsort", "sort"):
        c = method(name)
        for arguments in ((), (0,), (-1, True), (1, False), (U, True)):
            c.ok(c.distinct(3, 4), *arguments)
        c.ok(c.distinct(4, 3, dtype="float32").then("permute", [1, 0]), 0)
        c.ok(c.distinct(0, 3), 0)
        c.ok(c.distinct())
        c.no(c.f(2, 3), 2)
        c.no(c.f(2, 3), 0, Bad("string"))
    c = method("topk")
    for arguments in ((2,), (1, 0), (3, -1, False), (0,), (2, 1, True)):
        c.ok(c.distinct(3, 4), *arguments)
    c.ok(c.distinct(4, 3, dtype="float32").then("permute", [1, 0]), 2)
    c.no(c.f(2, 3), 4)
    c.no(c.f(2, 3), -1)
    c.no(c.f(2, 3), 1, 2)
    c.no(c.f(2, 3), Bad("fraction"))
    c = method("cumsum")
    for x, dim in ((c.f(2, 3), 0), (c.f(2, 3), -1), (c.f32(4), 0), (c.i(4), 0), (c.b(4), 0), (c.strided(3, 2), 1), (c.f(0, 2), 0),
                   (c.f(), 0)):
        c.ok(x, dim)
    c.no(c.f(2, 3), 2)
    c.no(c.f(2, 3), U, ask=False)
    for name in ("softmax", "logSoftmax"):
        c = method(name)
        for x, dim in ((c.f(2, 3), 0), (c.f(2, 3), -1), (c.f32(2, 3, 2), 1), (c.strided(3, 2), 1), (c.f(), 0), (c.f(0, 3), 1)):
            c.ok(x, dim)
        c.ok(c.f(2, 4, dtype="bfloat16"), 1, loose=2e-2)
        c.no(c.i(3), 0)
        c.no(c.f(2, 3), 2)
        c.no(c.f(2, 3), Bad("fraction"))
        c.no(c.f(2, 3), Bad("object"))
        c.no(c.f(2, 3), U, ask=False)


def write_all():
    import operator_shapes
    import operator_layers
    for group in (unary, binary, elementwise, reductions, *operator_shapes.GROUPS, *operator_layers.GROUPS):
        group()
