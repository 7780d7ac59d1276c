"""Cases of the operators that move values: shapes, indices, conversions, factories."""
from operators import Bad, Big, Spec, Typed, U
from operator_cases import INFINITE, function, method


def layouts():
    for name in ("view", "reshape"):
        c = method(name)
        for arguments in ((6,), ([3, 2],), (3, 2), ([-1],), (2, -1), ([1, 2, 3, 1],)):
            c.ok(c.f(2, 3), *arguments)
        c.ok(c.f(), [1, 1])
        c.ok(c.f(1), [])
        c.ok(c.f(0, 3), [3, 0])
        c.ok(c.i(4), [2, 2])
        c.ok(c.f(4, 3).then("slice", 0, 0, 4, 2), [2, 3, 1])
        c.no(c.f(2, 3), [4])
        c.no(c.f(2, 3), [-1, -1])
        c.no(c.f(2, 3), [-1, 4])
        c.no(c.f(2, 3), [-2, 3])
        c.no(c.f(2, 3), Bad("fraction"))
        c.no(c.f(2, 3), Bad("object"))
        c.no(c.f(2, 3), [Bad("string")])
        c.no(c.f(2, 3), [Bad("huge")])
        c.no(Bad("disposed"), [1])
    method("view").no(method("view").f(2, 3).then("permute", [1, 0]), [6])            # not without a copy
    method("reshape").ok(method("reshape").strided(2, 3), [6])
    c = method("permute")
    for arguments in (([2, 0, 1],), (0, 2, 1), (-1, 0, 1)):
        c.ok(c.f(2, 3, 2), *arguments)
    c.ok(c.f(), [])
    c.no(c.f(2, 3), [0, 0])
    c.no(c.f(2, 3), [0])
    c.no(c.f(2, 3), [0, 2])
    c = method("transpose")
    for arguments in ((0, 1), (-1, 0), (1, 1)):
        c.ok(c.f(2, 3, 2), *arguments)
    c.ok(c.i(2, 3), 0, 1)
    c.no(c.f(2, 3), 0, 2)
    c.no(c.f(2, 3), 0, U, ask=False)
    c = method("flatten")
    for arguments in ((), (1,), (0, 1), (-2, -1), (1, 1)):
        c.ok(c.f(2, 3, 2), *arguments)
    c.ok(c.f())
    c.ok(c.strided(2, 3))
    c.no(c.f(2, 3), 1, 0)
    c.no(c.f(2, 3), 2)
    c = method("unsqueeze")
    for dim in (0, 1, -1, 2):
        c.ok(c.f(2, 3), dim)
    c.ok(c.f(), 0)
    c.no(c.f(2, 3), 3)
    c.no(c.f(2, 3), Bad("fraction"))
    c = method("squeeze")
    for arguments in ((), (0,), (1,), (-1,)):
        c.ok(c.f(1, 3, 1), *arguments)
    c.no(c.f(1, 3), 2)
    c = method("expand")
    for x, *arguments in ((c.f(1, 3), [4, 3]), (c.f(1, 3), 2, -1), (c.f(3), [2, 3]), (c.f(), [2, 2]), (c.f32(2, 1), 2, 0)):
        c.ok(x, *arguments)
    c.no(c.f(2, 3), [2, 4])
    c.no(c.f(2, 3), [3])
    c = method("repeat")
    for x, *arguments in ((c.f(2), [3]), (c.f(2), 2, 2), (c.f(2, 3), [1, 2]), (c.f(2), [0]), (c.strided(2, 2), 2, 1)):
        c.ok(x, *arguments)
    c.no(c.f(2, 3), [2])
    c.no(c.f(2), [-1])
    c = method("repeatInterleave")
    for x, *arguments in ((c.f(2, 3), 2), (c.f(2, 3), 2, 0), (c.f(2, 3), 3, -1), (c.i(3), 2, 0), (c.f(2), 0, 0), (c.strided(2, 3), 2, 0)):
        c.ok(x, *arguments)
    c.no(c.f(2), -1, 0)
    c.no(c.f(2), 2, 1)
    c.no(c.f(2), Bad("fraction"))
    c = method("flip")
    for arguments in (([0],), (1,), (0, -1), ([],)):
        c.ok(c.f(2, 3), *arguments)
    c.ok(c.strided(2, 3), 0)
    c.no(c.f(2, 3), [0, 0])
    c.no(c.f(2, 3), 2)
    c = method("tril")
    for arguments in ((), (1,), (-1,)):
        c.ok(c.f(3, 4), *arguments)
    c.ok(c.f32(2, 3, 3))
    c.ok(c.b(3, 3))
    c.no(c.f(3))
    c = method("diagonal")
    for arguments in ((), (1,), (-1,), (0, 1, 2), (0, -1, 0)):
        c.ok(c.f(3, 4, 2), *arguments)
    c.no(c.f(3))
    c.no(c.f(3, 3), 0, 0, 0)


def parts():
    c = method("narrow")
    for arguments in ((0, 1, 2), (1, 0, 1), (-1, 2, 2), (0, -2, 1), (1, 1, 0)):
        c.ok(c.f(3, 4), *arguments)
    c.ok(c.strided(3, 4), 1, 1, 2)
    c.no(c.f(3, 4), 0, 2, 2)
    c.no(c.f(3, 4), 2, 0, 1)
    c.no(c.f(3, 4), 0, 0, -1)
    c.no(c.f(3, 4), 0, 0, Bad("fraction"))
    c = method("select")
    for arguments in ((0, 1), (1, -1), (-1, 0)):
        c.ok(c.f(3, 4), *arguments)
    c.ok(c.i(3), 0, 2)
    c.no(c.f(3, 4), 0, 3)
    c.no(c.f(3, 4), 2, 0)
    c.no(c.f(), 0, 0)
    c = method("slice")
    for arguments in ((0,), (0, 1), (1, 1, 3), (-1, U, 2), (1, 0, 5, 2), (0, -2), (0, 2, 1), (1, U, -1), (0, 0, 100)):
        c.ok(c.f(4, 5), *arguments)
    c.ok(c.strided(3, 4), 1, 1, 4, 2)
    c.no(c.f(3, 4), 2)
    c.no(c.f(3, 4), 0, 0, 2, 0)
    c.no(c.f(3, 4), 0, 0, 2, -1)
    c.no(c.f(), 0)
    c.no(c.f(3), 0, Bad("fraction"))
    c = method("index")
    rows, columns = Spec("int64", (3,), [2, 0, -1]), Spec("int64", (2, 1), [1, 3])
    c.ok(c.f(3, 4), [rows])
    c.ok(c.f(3, 4), [None, columns])
    c.ok(c.f(3, 4), [rows, Spec("int64", (3,), [0, 1, 1])])
    c.ok(c.f(3, 4, 2), [rows, columns])
    c.ok(c.f(3, 4), [Spec("bool", (3,), [1, 0, 1])])
    c.ok(c.f(3, 4), [Spec("bool", (3, 4), [1, 0, 0, 1] * 3)])
    c.ok(c.strided(3, 4), [None, columns])
    c.ok(c.f(3, 4), [Spec("int64", (0,), [])])
    c.no(c.f(3, 4), [Spec("int64", (1,), [3])])
    c.no(c.f(3, 4), [Spec("float64", (1,), [0])])
    c.no(c.f(3), [rows, rows])
    c.no(c.f(3, 4), [Spec("bool", (2,), [1, 0])])
    c.no(c.f(3, 4), rows, ask=False)
    c.no(c.f(3, 4), [Bad("object")])
    c = method("indexSelect")
    for arguments in ((c.f(3, 4), 0, Spec("int64", (4,), [2, 0, 0, 1])), (c.f(3, 4), -1, Spec("int64", (1,), [3])),
                      (c.strided(3, 4), 1, Spec("int32", (2,), [0, 2])),
                      (c.f(3, 4), 0, Spec("int64", (0,), [])), (c.i(3), 0, Spec("int64", (), [1]))):
        c.ok(*arguments)
    c.no(c.f(3, 4), 0, Spec("int64", (1,), [3]))
    c.no(c.f(3, 4), 0, c.f(2))
    c.no(c.f(3, 4), 0, c.i(2, 2, high=2))
    c.no(c.f(3, 4), 2, c.i(1, high=2))
    c = method("gather")
    for arguments in ((c.f(3, 4), 1, c.i(3, 2, high=4)), (c.f(3, 4), 0, c.i(2, 4, high=3)), (c.strided(3, 4), -1, c.i(3, 1, high=4)),
                      (c.i(4), 0, c.i(6, high=4)),
                      (c.f(3, 4), 1, c.i(3, 0))):
        c.ok(*arguments)
    c.no(c.f(3, 4), 1, Spec("int64", (1, 1), [4]))
    c.no(c.f(3, 4), 1, c.f(3, 1))
    c.no(c.f(3, 4), 1, c.i(3, high=2))
    c.no(c.f(3, 4), 1, c.i(4, 1, high=2))
    c = method("chunk")
    for arguments in ((2,), (3, 1), (2, -1), (7, 0), (1,)):
        c.ok(c.f(4, 5), *arguments)
    c.ok(c.strided(4, 3), 2)
    c.no(c.f(4), 0)
    c.no(c.f(4), 2, 1)
    c.no(c.f(4), Bad("fraction"))
    c = method("split")
    for arguments in ((2,), (3, 1), ([1, 3],), ([0, 2, 3], -1), (9,)):
        c.ok(c.f(4, 5), *arguments)
    c.no(c.f(4), [1, 2])
    c.no(c.f(4), -1)
    c.no(c.f(4), 0)
    c.no(c.f(4), [Bad("fraction"), 2])
    c = method("unbind")
    for arguments in ((), (1,), (-1,)):
        c.ok(c.f(2, 3), *arguments)
    c.ok(c.i(3))
    c.no(c.f(2, 3), 2)
    c.no(c.f())
    for name in ("cat", "stack"):
        c = function(name)
        same = lambda: [c.f(2, 3), c.strided(2, 3), c.f(2, 3)]
        c.ok(same())
        c.ok(same(), 1)
        c.ok(same(), -1)
        c.ok([c.f(2)])
        c.ok([c.i(2), c.i(2)], 0)
        c.ok([c.f32(2), c.f(2)])
        c.no([])
        c.no([c.f(2, 3), c.f(3, 3)], 1)
        c.no([c.f(2), c.f(2)], 2)
        c.no([c.f(2), Bad("object")])
        c.no([c.f(2), Bad("disposed")])
        c.no([c.f(2), None], ask=False)
        c.no(c.f(2), ask=False)
    function("cat").ok([function("cat").f(2, 3), function("cat").f(1, 3), function("cat").f(0, 3)])
    function("stack").ok([function("stack").f(), function("stack").f()])
    function("cat").no([function("cat").f(), function("cat").f()])


def conversions():
    c = method("to")
    everything = ("float32", "float64", "bfloat16", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
    for dtype in everything:
        c.ok(Spec("float64", (5,), [0, 1.7, 100.3, 3.14159, 2.5]), {"dtype": dtype})
        c.ok(Spec(dtype, (3,), [0, 1, 1]), {"dtype": "float32"})
    c.ok(c.f(2, 3), {})
    c.ok(c.f(2, 3), {"dtype": "float64"})
    c.ok(c.f32(2, 3), {"copy": True})
    c.ok(c.f32(2, 3), {"device": "cpu"})
    c.ok(c.strided(2, 3), {"dtype": "float32", "device": "cpu"})
    c.no(c.f(2), {"dtype": "float8"})
    c.no(c.f(2), {"dtype": Bad("object")})
    c.no(c.f(2), {"device": "cuda:99"}, ask=False)
    c.no(c.f(2), {"device": "abacus"}, ask=False)
    c.no(Bad("disposed"), {})
    for name in ("clone", "contiguous", "detach"):
        c = method(name)
        for x in (c.f(2, 3), c.f32(), c.i(3), c.b(2), c.strided(2, 3), c.f(0), c.f().then("expand", [3]), c.f(2, dtype="bfloat16")):
            c.ok(x)
        c.no(Bad("disposed"))
    c = method("toArray")
    for x in (c.f(2, 3), c.f32(2), c.i(3), c.i(3, dtype="int32"), c.i(3, dtype="int16"), c.i(3, dtype="int8"), c.i(3, dtype="uint8"),
              c.b(3), c.f(3, dtype="bfloat16"),
              c.f(3, dtype="float16"), c.strided(2, 3), c.f(), c.f(0, 2), INFINITE, Spec("int64", (2,), [2 ** 60 + 1, -2 ** 63])):
        c.ok(x, track=False)
    c.no(Bad("disposed"))
    c = method("item")
    for x in (c.f(), c.f32(1), c.f(1, 1), c.i(), c.b(), c.i(dtype="uint8"), c.f(dtype="bfloat16"), Spec("int64", (), [2 ** 60 + 1]),
              Spec("float64", (), [float("inf")]), Spec("float64", (), [-0.5])):
        c.ok(x, track=False)
    c.no(c.f(2))
    c.no(c.f(0))
    c = method("requiresGrad_")
    for arguments in ((c.f(2), True), (c.f(2),), (c.f(2), False), (c.i(2), False), (c.f(2, dtype="bfloat16"), True)):
        c.ok(*arguments, track=False)
    c.no(c.i(2), True)
    c.no(c.b(2))
    c.no(c.f(2), Bad("string"))


def factories():
    c = function("tensor")
    for arguments in (([1, 2.5, -3],), ([1, 2, 3, 4], [2, 2]), ([], [0, 2]), ([7], []), ([1, 0, 2], [3], {"dtype": "int64"}),
                      ([1, 0], [2], {"dtype": "bool"}),
                      ([1.5, 2.25], U, {"dtype": "bfloat16"}), ([0.1, 0.2], [2], {"dtype": "float64", "requiresGrad": True}), ([0.1], [1],
                              {"dtype": "float16", "device": "cpu"})):
        c.ok(*arguments)
    for kind, values in (("Float32Array", [0.5, -1]), ("Float64Array", [0.1, 0.2]), ("BigInt64Array", [5, -2 ** 60]),
                         ("Int32Array", [1, -2]), ("Int16Array", [3, 4]),
                         ("Int8Array", [-5, 6]), ("Uint8Array", [7, 255])):
        c.ok(Typed(kind, values))
        c.ok(Typed(kind, values), [2, 1])
    c.ok(Typed("Float32Array", [0.1, 300.5]), [2], {"dtype": "bfloat16"})
    c.ok(Typed("Uint8Array", [0, 1, 1]), [3], {"dtype": "bool"})
    c.no([1, 2, 3], [2])
    c.no([1, 2], [-2], ask=False)
    c.no([1, 2], [Bad("fraction")])
    c.no([1, 2], [2], {"dtype": "float8"})
    c.no([1, 2], [2], {"dtype": "int64", "requiresGrad": True})
    c.no([1, 2], [2], {"device": "abacus"}, ask=False)
    c.no(Bad("object"), [2])
    for name in ("zeros", "ones", "empty"):
        c, options = function(name), ("shape",) if name == "empty" else ()
        for arguments in (([2, 3],), ([],), ([0, 2],), ([2], {"dtype": "float64"}), ([2], {"dtype": "bool"}),
                          ([3], {"dtype": "int64", "device": "cpu"}),
                          ([2], {"dtype": "bfloat16", "requiresGrad": True})):
            c.ok(*arguments, options=options)
        c.no([-1])
        c.no([2], {"dtype": "int64", "requiresGrad": True})
        c.no([Bad("fraction")])
        c.no([Bad("huge"), Bad("huge")])
        c.no([2], {"dtype": "float8"})
        c.no([2], {"device": "cuda:99"}, ask=False)
    c = function("full")
    for arguments in (([2, 3], 1.5), ([2], 3), ([2], Big(3)), ([], -1, {"dtype": "float64"}), ([2], Big(7), {"dtype": "int64"}), ([0], 1),
                      ([2], 1, {"requiresGrad": True})):
        c.ok(*arguments)
    c.no([-1], 1)
    c.no([2], Bad("string"))
    c = function("arange")
    for arguments in ((4,), (0,), (4, {"dtype": "int64"}), (1, 5), (1, 2, 0.25), (5, 0, -2), (0, 1, 0.25, {"dtype": "float64"}), (2.5,),
                      (3, {"dtype": "float64", "requiresGrad": True})):
        c.ok(*arguments)
    c.no(1, 0, 1)
    c.no(0, 1, 0)
    c.no(Bad("string"))
    c = function("linspace")
    for arguments in ((0, 1, 5), (1, -1, 3, {"dtype": "float64"}), (2, 2, 1), (0, 1, 0)):
        c.ok(*arguments)
    c.no(0, 1, -1)
    c.no(0, 1, Bad("fraction"))
    c = function("eye")
    for arguments in ((3,), (0,), (2, {"dtype": "float64"}), (2, {"dtype": "int64"})):
        c.ok(*arguments)
    c.no(-1)
    for name in ("zerosLike", "onesLike"):
        c = function(name)
        for arguments in ((c.f(2, 3),), (c.i(2),), (c.strided(2, 2), {"dtype": "float32"}), (c.f(0), {"device": "cpu"}), (c.f(),)):
            c.ok(*arguments)
        c.no(Bad("object"))
        c.no(c.f(2), {"dtype": "float8"})
    c = function("fullLike")
    for arguments in ((c.f(2, 3), 2.5), (c.i(2), Big(4)), (c.f(2), 1, {"dtype": "float32"}), (c.f(), -1)):
        c.ok(*arguments)
    c.no(c.f(2), Bad("string"))
    c = function("oneHot")
    for arguments in ((Spec("int64", (3,), [0, 2, 1]), 3), (Spec("int64", (2, 2), [0, 1, 3, 0]), 5), (Spec("int64", (), [1]), 2),
                      (Spec("int64", (0,), []), 3)):
        c.ok(*arguments)
    c.no(Spec("int64", (2,), [0, 3]), 3)
    c.no(Spec("int64", (1,), [-1]), 3)
    c.no(c.f(2), 3)
    c.no(Spec("int64", (1,), [0]), Bad("fraction"))


GROUPS = (layouts, parts, conversions, factories)
