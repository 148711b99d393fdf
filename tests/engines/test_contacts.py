"""Which geoms touch and what their contacts take: as MuJoCo has it when all of them overlap."""

from __future__ import annotations

import random

import mujoco
import numpy as np
import pytest

from randomization.physics.contacts import contacts_of


def tangle(seed: int) -> str:
    """Spheres in one place on bodies that are nested, welded, still or driven, with filters, pairs and excludes."""
    r = random.Random(seed)
    count = 0

    def geom(kind: str = "sphere") -> str:
        nonlocal count
        count += 1
        solref = r.choice(["0.02 1", "0.05 0.7", "-900 -60", "-400 -20"])
        numbers = {
            "contype": r.choice([0, 1, 1, 2, 3]), "conaffinity": r.choice([0, 1, 1, 2, 4]),
            "condim": r.choice([1, 3, 4, 6]), "priority": r.choice([0, 0, 0, 1, 2]),
            "friction": f"{r.uniform(0.1, 2):.3f} {r.uniform(0.001, 0.1):.4f} {r.uniform(0.001, 0.1):.4f}",
            "solref": solref, "solimp": f"{r.uniform(0.5, 0.8):.3f} {r.uniform(0.9, 0.95):.3f} 0.01",
            "solmix": r.choice([0, 0.5, 1, 3]), "margin": r.choice([0, 0.01]), "gap": r.choice([0, 0.02]),
        }  # fmt: skip
        given = " ".join(f'{key}="{value}"' for key, value in numbers.items())
        return f'<geom name="g{count}" type="{kind}" size="0.5 0.5 0.5" {given}/>'

    def body(depth: int) -> str:
        joint = r.choice(["", '<joint axis="0 1 0"/>', '<joint type="slide"/>'])
        mocap = 'mocap="true"' if depth == 0 and not joint and r.random() < 0.5 else ""
        inside = "".join(geom() for _ in range(r.randint(0, 2)))
        inside += "".join(body(depth + 1) for _ in range(r.randint(0, 2) if depth < 3 else 0))
        inertial = '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'
        return f'<body name="b{r.getrandbits(40)}" {mocap}>{inertial}{joint}{inside}</body>'

    world = geom(r.choice(["plane", "sphere"])) + geom() + "".join(body(0) for _ in range(3))
    names = [f"g{i}" for i in range(1, count + 1)]
    pairs = {tuple(r.sample(names, 2)) for _ in range(3)} if count > 1 else set()
    kept = {frozenset(pair): pair for pair in pairs}.values()
    declared = "".join(f'<pair geom1="{a}" geom2="{b}" condim="{r.choice([1, 3, 4, 6])}"/>' for a, b in kept)
    bodies = [part.split('"')[0] for part in world.split('<body name="')[1:]]
    exclude = "".join(f'<exclude body1="{a}" body2="{b}"/>' for a, b in [r.sample(bodies, 2)])
    flag = r.choice(["", '<flag filterparent="disable"/>'])
    return (
        f"<mujoco><option>{flag}</option><worldbody>{world}</worldbody><contact>{declared}{exclude}</contact></mujoco>"
    )


@pytest.mark.parametrize("seed", range(60))
def test_the_contacts_are_mujocos_own_with_all_their_parameters(seed: int) -> None:
    model = mujoco.MjModel.from_xml_string(tangle(seed))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    found = {tuple(sorted(int(g) for g in c.geom)): c for c in data.contact}
    ours = contacts_of(model)
    moving = model.body_dofnum[model.body_weldid[model.geom_bodyid]] > 0
    assert {tuple(pair) for pair in ours.shapes.tolist()} == {p for p in found if moving[list(p)].any()}
    mixed = {name: ours.mixed(name, values) for name, values in ours.nominal.items()}
    for i, (a, b) in enumerate(ours.shapes.tolist()):
        contact = found[a, b]
        assert int(ours.dim[i]) == contact.dim
        if ours.pair[i] >= 0:
            continue
        np.testing.assert_allclose(mixed["friction"][i][[0, 0, 1, 2, 2]], contact.friction, rtol=1e-12)
        np.testing.assert_allclose(mixed["solref"][i], contact.solref, rtol=1e-12)
        np.testing.assert_allclose(mixed["solimp"][i], contact.solimp, rtol=1e-12)
        assert mixed["margin"][i, 0] == pytest.approx(contact.includemargin, abs=1e-15)


@pytest.mark.parametrize("seed", range(30))
def test_a_contact_takes_what_changes_it_and_nothing_else(seed: int) -> None:
    model = mujoco.MjModel.from_xml_string(tangle(seed))
    ours = contacts_of(model)
    for name, values in ours.nominal.items():
        for geom in range(model.ngeom):
            changes = False
            for factor in (0.1, 0.9, 1.1, 10.0):
                changed = values.copy()
                changed[geom] = changed[geom] * factor if name != "margin" else changed[geom] + factor
                if name == "gap":
                    changed[geom] += factor
                differs = (ours.mixed(name, changed) != ours.mixed(name, values)).any(axis=1) & (ours.pair < 0)
                changes |= bool(differs.any())
            if changes:
                assert ours.takes(name, geom)
            elif name != "solref" and name != "friction":  # of these, the partner's value may be out of reach
                assert not ours.takes(name, geom)
