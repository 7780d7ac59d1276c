"""Cases of products, layers, losses, linear algebra, whole lists and draws."""
from operators import Bad, Spec, U
from operator_cases import function, method


def products():
    c = method("matmul")
    for a, b in ((c.f(2, 3), c.f(3, 4)), (c.f(3), c.f(3)), (c.f(2, 3), c.f(3)), (c.f(3), c.f(3, 2)), (c.f(4, 2, 3), c.f(3, 2)),
                 (c.f(2, 1, 2, 3), c.f(3, 3, 2)),
                 (c.f32(2, 3), c.f32(3, 2)), (c.strided(2, 3), c.strided(3, 2)), (c.f(0, 3), c.f(3, 2)), (c.f(2, 0),
                         c.f(0, 2)), (c.i(2, 3), c.i(3, 2))):
        c.ok(a, b)
    c.ok(c.f(2, 3, dtype="bfloat16"), c.f(3, 2, dtype="bfloat16"), loose=3e-2)
    c.no(c.f(2, 3), c.f(2, 3))
    c.no(c.f(2, 3), c.f32(3, 2))
    c.no(c.f(), c.f(2))
    c.no(c.f(2, 2), 2, ask=False)
    c.no(c.f(2, 2), Bad("object"))
    c.no(c.f(2, 2), Bad("disposed"))
    c.no(Bad("disposed"), c.f(2, 2))
    c = function("linear")
    for arguments in ((c.f(2, 3), c.f(4, 3), c.f(4)), (c.f(2, 3), c.f(4, 3)), (c.f(2, 2, 3), c.f(4, 3), None), (c.f(3), c.f(4, 3), U),
                      (c.f32(2, 3), c.f32(4, 3), c.f32(4)),
                      (c.strided(2, 3), c.strided(4, 3), c.f(4)), (c.f(0, 3), c.f(4, 3), c.f(4))):
        c.ok(*arguments)
    c.ok(c.f(2, 3, dtype="bfloat16"), c.f(4, 3, dtype="bfloat16"), c.f(4, dtype="bfloat16"), loose=3e-2)
    c.no(c.f(2, 3), c.f(4, 2))
    c.no(c.f(2, 3), c.f(4, 3), c.f(3))
    c.no(c.f(2, 3), c.f32(4, 3))
    c.no(c.f(2, 3), Bad("object"))
    c.no(c.f(2, 3), c.f(4, 3), Bad("disposed"))
    c = function("einsum")
    for equation, operands in (("ij,jk->ik", (c.f(2, 3), c.f(3, 4))), ("bhnd,bhmd->bhnm", (c.f(2, 1, 3, 2), c.f(2, 1, 4, 2))),
                               ("ii", (c.f(3, 3),)),
                               ("ij->ji", (c.f(2, 3),)), ("i,j", (c.f32(2), c.f32(3))), ("...i,i->...", (c.f(2, 2, 3), c.f(3)))):
        c.ok(equation, list(operands))
    c.no("ij,jk->ik", [c.f(2, 3), c.f(2, 3)])
    c.no("ij->k", [c.f(2, 3)])
    c.no("ij", [c.f(2)])
    c.no("ij", [c.f(2, 2), c.f(2, 2)])
    c.no(Bad("object"), [c.f(2)])


def layers():
    c = function("embedding")
    for w, i in ((c.f(5, 3), c.i(4)), (c.f(5, 3), c.i(2, 2)), (c.f32(5, 3), c.i()), (c.f(5, 3), c.i(3, dtype="int32")),
                 (c.strided(5, 3), c.i(4)), (c.f(5, 3), c.i(0))):
        c.ok(w, i)
    c.no(c.f(5, 3), Spec("int64", (1,), [5]))
    c.no(c.f(5, 3), Spec("int64", (1,), [-1]))
    c.no(c.f(5, 3), c.f(2))
    c.no(c.f(5), c.i(2, high=2))
    c = function("layerNorm")
    for arguments in ((c.f(2, 4), [4]), (c.f(2, 4), [4], c.f(4), c.f(4)), (c.f(2, 3, 4), [3, 4], c.f(3, 4), None),
                      (c.f(2, 4), [4], U, c.f(4), 1e-3), (c.f32(2, 4), [4], U, U, 1e-6),
                      (c.strided(2, 4), [4]), (c.f(0, 4), [4])):
        c.ok(*arguments, loose=4e-6 if arguments[0].dtype == "float32" else None)
    c.no(c.f(2, 4), [3])
    c.no(c.f(2, 4), [4], c.f(3))
    c.no(c.i(2, 4), [4])
    c.no(c.f(2, 4), 4, ask=False)
    c = function("rmsNorm")
    for arguments in ((c.f(2, 4),), (c.f(2, 3, 4), c.f(4)), (c.f(2, 4), None, 1e-2), (c.f(2, 4), c.f(4), 1e-6), (c.f32(2, 4), c.f32(4)),
                      (c.strided(2, 4),), (c.f(0, 4),), (c.f(4), U)):
        c.ok(*arguments, loose=2e-6 if arguments[0].dtype == "float32" else None)
    c.ok(Spec("float64", (2, 3), [0, 0, 0, 1e-4, 2e-4, 0]))
    c.no(c.f(2, 4), c.f(3))
    c.no(Bad("disposed"), c.f(3))
    c.no(c.f(2, 4), Bad("object"))
    c = function("scaledDotProductAttention")
    heads_second = c.f(1, 3, 2, 4).then("permute", [0, 2, 1, 3])
    for q, k, v in ((c.f(1, 2, 3, 4), c.f(1, 2, 3, 4), c.f(1, 2, 3, 4)), (c.f(1, 2, 3, 4), c.f(1, 2, 5, 4), c.f(1, 2, 5, 4)),
                    (c.f32(1, 1, 2, 4), c.f32(1, 1, 2, 4), c.f32(1, 1, 2, 4)),
                    (c.strided(1, 2, 3, 4), c.strided(1, 2, 3, 4), c.strided(1, 2, 3, 4)), (heads_second,) * 3):
        c.ok(q, k, v, loose=2e-6 if q.dtype == "float32" else None)
    c.no(c.f(1, 2, 3, 4), c.f(1, 2, 3, 5), c.f(1, 2, 3, 4))
    c.no(c.f(1, 2, 3, 4), c.f(1, 2, 5, 4), c.f(1, 2, 3, 4))
    c.no(c.f(1, 2, 3, 4), c.f(1, 2, 3, 4), Bad("object"))
    c.no(c.f(1, 2, 3, 4), c.f(1, 2, 3, 4), Bad("disposed"))
    c = function("conv2d")
    x, w = (lambda: c.f(2, 2, 5, 4)), (lambda: c.f(3, 2, 3, 3))
    for arguments in ((x(), w()), (x(), w(), c.f(3)), (x(), w(), None, 2, 1), (x(), w(), U, [2, 1], [1, 0]),
                      (c.f(1, 2, 6, 6), w(), U, 1, 2, 2), (x(), c.f(4, 1, 3, 3), c.f(4), 1, 1, 1, 2),
                      (c.strided(2, 2, 5, 4), w()), (c.f(0, 2, 5, 4), w())):
        c.ok(*arguments)
    c.ok(c.f32(1, 2, 4, 4), c.f32(3, 2, 3, 3), c.f32(3), 1, 1, loose=4e-6)
    c.no(x(), c.f(3, 3, 3, 3))
    c.no(x(), w(), c.f(2))
    c.no(x(), w(), U, 0)
    c.no(x(), w(), U, 1, -1)
    c.no(c.f(2, 2, 2, 2), w())
    c.no(x(), c.f32(3, 2, 3, 3))
    c.no(x(), w(), U, Bad("fraction"))
    c.no(x(), w(), U, Bad("object"))
    c.no(x(), w(), U, 1, 0, 1, 3)
    c = function("exactConv2d")
    for arguments in ((x(), w(), None), (x(), w(), c.f(3), 2, 1), (x(), w(), c.f(3), [2, 1], [1, 0]), (c.strided(2, 2, 5, 4), w(), None)):
        c.ok(*arguments)
    c.ok(c.f32(1, 2, 4, 4), c.f32(3, 2, 3, 3), c.f32(3), 1, 1, loose=4e-6)
    c.no(x(), c.f(3, 3, 3, 3), None)
    c.no(x(), w(), c.f(2))
    c.no(x(), w(), None, 0)
    c.no(x(), w(), None, Bad("fraction"))
    c = function("batchNorm")
    for arguments in ((c.f(4, 3), c.f(3), c.positive(3)), (c.f(2, 3, 2, 2), c.f(3), c.positive(3), c.f(3), c.f(3)),
                      (c.f(4, 3), c.f(3), c.positive(3), U, U, True),
                      (c.f(2, 3, 2, 2), c.f(3), c.positive(3), c.f(3), c.f(3), True, 0.3, 1e-3),
                      (c.f(4, 3), None, None, c.f(3), None, True)):
        c.ok(*arguments, track=False)
    c.ok(c.f(4, 3), None, None, c.f(3), c.f(3), True)
    c.ok(c.f32(4, 3), None, None, U, U, True, loose=4e-6)
    c.no(c.f(4, 3), None, None)
    c.no(c.f(4, 3), c.f(2), c.positive(2))
    c.no(c.f(4, 3), c.f(3), c.positive(3), c.f(2))
    for name in ("avgPool2d", "maxPool2d"):
        c = function(name)
        for arguments in ((c.distinct(1, 2, 4, 4), 2), (c.distinct(1, 2, 5, 4), [2, 1]), (c.distinct(1, 2, 5, 5), 3, 1),
                          (c.distinct(1, 2, 5, 5), 3, [2, 1], 1), (c.distinct(2, 4, 4), 2),
                          (c.distinct(1, 1, 4, 4, dtype="float32"), 2, U, 1)):
            c.ok(*arguments)
        if name == "avgPool2d":
            c.ok(c.distinct(1, 2, 5, 5), 3, [2, 1], 1, False)
        c.no(c.f(4, 4), 2)
        c.no(c.f(1, 1, 4, 4), 2, 1, 2)
        c.no(c.f(1, 1, 4, 4), 0)
        c.no(c.f(1, 1, 4, 4), 5)
        c.no(c.f(1, 1, 4, 4), [2, 2, 2])
        c.no(c.f(1, 1, 4, 4), Bad("fraction"))
    c = function("adaptiveAvgPool2d")
    for arguments in ((c.f(2, 3, 4, 4), 1), (c.f(2, 3, 5, 4), [2, 3]), (c.f32(3, 4, 4), 2), (c.strided(1, 2, 4, 4), 2)):
        c.ok(*arguments)
    c.no(c.f(4, 4), 2)
    c.no(c.f(1, 1, 4, 4), -1)
    c = function("upsampleBilinear2d")
    for arguments in ((c.f(1, 2, 3, 3), [6, 6]), (c.f(1, 2, 4, 3), [2, 5]), (c.f32(2, 1, 2, 2), [3, 4])):
        c.ok(*arguments)
    c.no(c.f(2, 3, 3), [6, 6])
    c.no(c.f(1, 2, 3, 3), [0, 3])
    c.no(c.f(1, 2, 3, 3), [6])


def losses():
    c = function("crossEntropy")
    classes = lambda: c.i(4, high=3)
    for arguments in ((c.f(4, 3), classes()), (c.f(4, 3), classes(), {"reduction": "sum"}), (c.f(4, 3), classes(), {"reduction": "none"}),
                      (c.f(4, 3), classes(), {"labelSmoothing": 0.1}),
                      (c.f32(4, 3), classes()), (c.strided(4, 3), classes(), {}), (c.f(3), Spec("int64", (), [2])), (c.f(4, 3),
                              Spec("int64", (4,), [0, -100, 2, 1]))):
        c.ok(*arguments)
    c.no(c.f(4, 3), Spec("int64", (4,), [0, 1, 2, 3]))
    c.no(c.f(4, 3), c.i(3, high=3))
    c.no(c.f(4, 3), Spec("int32", (4,), [0, 1, 2, 0]))
    c.no(c.i(4, 3), classes())
    c.no(c.f(4, 3), classes(), {"reduction": "median"})
    c.no(c.f(4, 3), Bad("object"))
    for name in ("l1Loss", "mseLoss"):
        c = function(name)
        for arguments in ((c.f(2, 3), c.f(2, 3)), (c.f(2, 3), c.f(2, 3), "sum"), (c.f(2, 3), c.f(2, 3), "none"),
                          (c.f32(2, 3), c.f32(2, 3), "mean"), (c.strided(2, 3), c.f(2, 3)),
                          (c.f(0), c.f(0), "sum"), (c.f(2, 3), c.f(3))):
            c.ok(*arguments)
        c.no(c.f(2, 3), c.f(2, 2))
        c.no(c.f(2, 3), Bad("object"))
        c.no(c.f(2, 3), c.f(2, 3), "median")
    c = function("cosineSimilarity")
    for arguments in ((c.f(2, 3), c.f(2, 3)), (c.f(2, 3), c.f(2, 3), 0), (c.f(2, 3, 4), c.f(2, 3, 4), -1), (c.f32(2, 3), c.f32(2, 3)),
                      (c.f(2, 3), c.f(3), 1), (c.f(2, 3), c.f(2, 3), 1, 1e-4),
                      (c.strided(2, 3), c.f(2, 3))):
        c.ok(*arguments)
    c.no(c.f(2, 3), c.f(2, 2))
    c.no(c.f(2, 3), c.f(2, 3), 2)
    c.no(c.f(2, 3), Bad("object"))


def algebra():
    c = function("svdvals")
    for x in (c.f(4, 3), c.f(3, 4), c.strided(3, 3), c.f(2, 3, 3), c.f(0, 3)):
        c.ok(x, track=x.shape != (0, 3))
    c.ok(c.f32(4, 3), track=False, loose=4e-6)
    c.no(c.f(3))
    c.no(c.i(3, 3))
    c = function("eigh")
    symmetric = Spec("float64", (3, 3), [4, 1, 0.5, 1, 3, -0.25, 0.5, -0.25, 1.5])
    c.ok(symmetric, options=("abs", "order"))
    c.ok(Spec("float64", (2, 2), [2, 99, 1, 5]), track=False, options=("abs",))       # the upper half is not read
    c.no(c.f(2, 3))
    c.no(c.f(3))
    c.no(c.i(2, 2))
    c = function("cdist")
    for a, b in ((c.f(3, 2), c.f(4, 2)), (c.f32(3, 2), c.f32(4, 2)), (c.strided(3, 2), c.f(2, 2)), (c.f(0, 2), c.f(3, 2))):
        c.ok(a, b)
    c.no(c.f(3, 2), c.f(4, 3))
    c.no(c.f(3), c.f(3))
    c.no(c.i(3, 2), c.i(3, 2))


def lists():
    options = {"clip": 2, "beta1": 0.9, "beta2": 0.95, "weightDecay": 0.1, "eps": 1e-8}
    one = lambda value, dtype="float32": Spec(dtype, (), [value])
    c = function("stepNumbers")
    rates = lambda dtype="float64": Spec(dtype, (3,), [0.0078125, 0.25, 0.5])
    for norm, step in ((0.5, 0), (5.0, 7), (float("inf"), 3), (float("nan"), 3)):
        c.ok(one(norm, "float64"), one(step), rates(), options, track=False)
        c.ok(one(norm), one(step), rates("float32"), options, track=False, loose=1e-6)
    c.ok(one(3.0, "float64"), one(1), rates(), {**options, "weightDecay": 0, "beta1": 0}, track=False)
    c.no(one(0.5), one(0), c.f(2), options, ask=False)
    c.no(one(0.5), one(0, "float64"), rates(), options, ask=False)
    c.no(c.f(2), one(0), rates(), options)
    c.no(one(0.5), one(0), rates(), {**options, "clip": Bad("string")})
    c.no(Bad("disposed"), one(0), rates(), options)

    c = function("update_")

    def numbers(t=1, divisor=1, rate=0.01, decay=0.1, finite=1):
        return Spec("float64", (8,), [finite, divisor, rate, rate * decay, rate / (1 - 0.9 ** t), (1 - 0.95 ** t) ** -0.5, 0.25, 0.5])

    def parameter(*shape, dtype="float64", **more):
        return {"weight": c.f(*shape, dtype=dtype), **more}

    def adam(*shape, dtype="float64", **more):
        return parameter(*shape, dtype=dtype, moments=[c.f(*shape, dtype=dtype), c.positive(*shape, dtype=dtype)], **more)

    averages = lambda *shape, dtype="float64": {"target": c.f(*shape, dtype=dtype), "average": c.f(*shape, dtype=dtype)}
    copies = lambda *shape: {"copy": c.f(*shape, dtype="bfloat16"), "targetCopy": c.f(*shape, dtype="bfloat16")}
    for dtype in ("float64", "float32"):
        every = lambda **more: ([adam(3, 2, dtype=dtype), adam(4, dtype=dtype, **averages(4, dtype=dtype)), adam(dtype=dtype),
                                 parameter(2, 3, dtype=dtype, scale=0.7, **averages(2, 3, dtype=dtype)), parameter(0, dtype=dtype)],
                                [c.f(*n, dtype=dtype) for n in ((3, 2), (4,), (), (2, 3), (0,))], numbers(**more), options)
        c.ok(*every(), track=False)
        c.ok(*every(t=7, divisor=4, decay=0), track=False)
        c.ok(*every(finite=0), track=False)
    c.ok([adam(3, **averages(3)), adam(2), parameter(2, scale=2)], [None, U, None], numbers(), options, track=False)
    c.ok([parameter(2, 3), adam(2, 3)], [c.strided(2, 3), c.f().then("expand", [2, 3])], numbers(), options, track=False)
    c.ok([parameter(17, dtype="float32", **averages(17, dtype="float32"), **copies(17)), adam(5, dtype="float32", copy=c.f(5, dtype="bfloat16"))],
         [c.f(17, dtype="bfloat16"), c.f(5, dtype="bfloat16")], numbers(), options, track=False, loose=4e-3)
    c.ok([], [], numbers(), options, track=False)
    c.no([adam(2)], [], numbers(), options)
    c.no([adam(2)], [c.f(3)], numbers(), options)
    c.no([adam(2)], [c.f(2, dtype="bfloat16")], numbers(), options, ask=False)
    c.no([parameter(2, target=c.f(3))], [c.f(2)], numbers(), options)
    c.no([parameter(2, average=c.f32(2))], [c.f(2)], numbers(), options, ask=False)
    c.no([parameter(2, dtype="float32", copy=c.f32(2))], [c.f32(2)], numbers(), options, ask=False)
    c.no([{"weight": c.strided(2, 3)}], [c.f(2, 3)], numbers(), options, ask=False)               # written through plain pointers
    c.no([{"weight": c.i(2)}], [None], numbers(), options, ask=False)
    c.no([adam(2)], [c.f(2)], c.f(7), options)
    c.no([adam(2)], [c.f(2)], c.f32(8), options, ask=False)
    c.no([{"weight": Bad("disposed")}], [c.f(2)], numbers(), options)
    c.no([Bad("object")], [c.f(2)], numbers(), options)
    c.no([adam(2)], [Bad("object")], numbers(), options)
    c.no([adam(2)], [c.f(2)], numbers(), {**options, "eps": Bad("string")})

    c = function("muonDirection")
    for dtype in ("float64", "float32"):
        for more in ({}, {"divisor": 4}, {"finite": 0}):
            c.ok([c.f(4, 5, dtype=dtype), c.f(2, 5, dtype=dtype)], c.f(3, 2, 5, dtype=dtype), numbers(**more), 0.95, dtype, track=False)
    c.ok([c.strided(4, 17)], c.f(1, 4, 17), numbers(), 0.9, "float64", track=False)
    c.ok([c.f(4, 17, dtype="bfloat16")], c.f32(1, 4, 17), numbers(), 0.9, "bfloat16", track=False, loose=4e-3)
    c.ok([c.f(4, 3, dtype="bfloat16")], c.f32(2, 2, 3), numbers(), 0.9, "float32", track=False)
    c.no([c.f(4, 3)], c.f(3, 2, 3), numbers(), 0.95, "float64")
    c.no([c.f(5)], c.f(1, 2, 3), numbers(), 0.95, "float64")
    c.no([c.f(2, 3)], c.f(2, 3), numbers(), 0.95, "float64", ask=False)
    c.no([c.f32(2, 3)], c.f(1, 2, 3), numbers(), 0.95, "float64", ask=False)
    c.no([c.f(2, 3)], c.f(1, 2, 3), c.f(7), 0.95, "float64", ask=False)
    c.no([c.f(2, 3)], c.f(1, 2, 3), numbers(), 0.95, "int64", ask=False)
    c.no([Bad("disposed")], c.f(1, 2, 3), numbers(), 0.95, "float64")

    c = function("quintic_")
    for dtype, loose in (("float64", None), ("float32", None), ("bfloat16", 8e-3)):
        for n in ((2, 3, 3), (1, 17, 17), (3, 1, 1), (0, 2, 2)):
            c.ok(c.f(*n, dtype=dtype), c.f(*n, dtype=dtype), 3.5, -4.75, 2, track=False, loose=loose)
    c.no(c.f(2, 3, 3), c.f(1, 3, 3), 1, 1, 1)
    c.no(c.f(2, 3, 3), c.f32(2, 3, 3), 1, 1, 1)
    c.no(c.f(1, 2, 3), c.f(1, 2, 3), 1, 1, 1)
    c.no(c.f(3, 3), c.f(3, 3), 1, 1, 1, ask=False)
    c.no(c.strided(2, 3, 3), c.f(2, 3, 3), 1, 1, 1, ask=False)
    c.no(c.f(1, 2, 2), Bad("object"), 1, 1, 1)
    c.no(c.f(1, 2, 2), c.f(1, 2, 2), 1, Bad("string"), 1)
    c = function("gradNorm")
    for grads in ([c.f(3, 2), c.f(4), c.f()], [c.f32(3), None, c.f32(2, 2)], [c.strided(3, 2), U], [c.f(0), c.f(2)]):
        c.ok(grads, track=False)
    c.no([c.f(2), Bad("object")])
    c.no([c.f(2), Bad("disposed")])


def random():
    for name in ("rand", "randn"):
        c, key = function(name), {"lo": 0x9A3C51F7, "hi": 0x00000011}
        for arguments in ((key, 0, [2, 5]), (key, 7, [3, 2, 3]), (key, 2 ** 32 + 5, [1, 4]), (key, 2 ** 32 - 1, [2, 4]),
                          (key, Spec("int64", (), [9]), [2, 3]), (key, 3, [4]), (key, 0, [0, 3]),
                          ({"lo": 0, "hi": 0}, 0, [1, 8], {"dtype": "float64"}), (key, 1, [2, 2], {"device": "cpu"})):
            c.ok(*arguments, track=False, loose=2e-6)
        c.ok(key, 1, [2, 8], {"dtype": "bfloat16"}, track=False, loose=8e-3)
        c.no({"lo": Bad("string"), "hi": 0}, 0, [1])
        c.no(key, Bad("fraction"), [1])
        c.no(key, 0, [-1], ask=False)
        c.no(key, 0, Bad("object"))
        c.no(key, 0, [2], {"dtype": "float8"}, ask=False)
        c.no(key, 0, [2], {"dtype": "int64"}, ask=False)


GROUPS = (products, layers, losses, algebra, lists, random)
