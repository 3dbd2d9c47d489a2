"""How each command of the README is run in a test.

A command that the README has and `TABLE` has not fails, and so does one that it no longer has. To add one: its text as
the README has it, without the comment; what has to be there before (`needs`, made in `readme_needs.py`), the words that
make it small (`more`), and what it leaves or says. A command that needs a machine of its own names the test that runs
it there (`Elsewhere`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests import readme_needs as needs
from tests.readme import Elsewhere, Entry, Run, Snippet, Target
from tests.readme_needs import PATCH, SMALL

_JOB = "tests/jobs/test_ray_job_submit.py::"
_LAUNCHER = "tests/jobs/test_ray_submit.py::"
_WEIGHED = f"--weights weights {SMALL}"
_PRETRAIN = (
    "--recipe demo --set crop=16 --set batch=4 --set valid=4 --set settings.steps=2 --set model.refinement=1 "
    "--set every.validate=2 --workers 0 --device cpu"
)
_FINETUNE = (
    "--set model.width=8 --set model.refinement=1 --epochs 0.01 --batch_size 4 --patch_size 16 --workers 0 --device cpu"
)
_CPU = "--device cpu"

TABLE: dict[str, Sequence[Entry]] = {
    "make demo": [Target(recipe=("jobs/demo.py --out demo-out",))],
    "make demo PHOTOS=~/Pictures": [Target(recipe=("jobs/demo.py --out demo-out --photos",))],
    "make test": [Target(recipe=("-m pytest", "ruff check .", "mypy"))],
    "dynet-filter --urls laion_hr/*.parquet --out s3://bucket/million-ird --weights weights/": [
        Run(
            needs={"laion_hr": needs.link_lists, "weights": needs.prior},
            more=SMALL,
            leaves=("s3://bucket/million-ird/shards/manifest.json", "s3://bucket/million-ird/report/index.html"),
        )
    ],
    "python jobs/filter_laion.py --urls laion_hr.parquet --out million-ird": [
        Run(
            needs={"jobs": needs.jobs, "laion_hr.parquet": needs.links, "weights": needs.prior},
            more=_WEIGHED,
            leaves=("million-ird/shards/manifest.json",),
        )
    ],
    "dynet-filter plan --urls laion_hr.parquet --pilot 5000 --nodes 8 --cores 32 --gbits 10 "
    "--for s3://bucket/million-ird": [
        Run(
            needs={"laion_hr.parquet": needs.links, "weights": needs.prior},
            more=_WEIGHED,
            leaves=("laion_hr-pilot/report/pilot.json", "s3://bucket/million-ird/report/plan.json"),
        )
    ],
    "python jobs/simulate.py --pilot laion_hr-pilot/report/pilot.json --nodes 16 --cores 16": [
        Run(
            needs={"jobs": needs.jobs, "laion_hr-pilot/report/pilot.json": needs.pilot},
            more="--urls 100000",
            says="last 1 %",
        )
    ],
    "python jobs/drill.py --list": [Run(needs={"jobs": needs.jobs}, says="torn-shard")],
    "python jobs/drill.py --out /shared/drill --serve-on 10.0.0.5": [
        Elsewhere(tests=("tests/jobs/test_drill.py::test_a_handful_for_real_and_what_did_not_happen_fails",))
    ],
    "dynet-filter --urls … --out STORE --metrics-port 9100 --log units.log": [
        Run(
            needs={"links": needs.links, "weights": needs.prior},
            values={"…": "links"},
            more=_WEIGHED,
            leaves=("units.log", "STORE/shards/manifest.json"),
        )
    ],
    "ray start --head --metrics-export-port=8080": [
        Elsewhere(
            tests=(
                f"{_JOB}test_a_submitted_job_leaves_a_whole_store",
                "tests/pipelines/test_metering.py::test_both_endpoints_and_the_log_say_what_the_ledger_says",
            )
        )
    ],
    "export RAY_AUTH_MODE=token": [Elsewhere(tests=(f"{_JOB}test_without_the_token_nothing_is_taken",))],
    "ray get-auth-token --generate": [Run(leaves=(".ray/auth_token",))],
    "chmod 600 ~/.ray/auth_token": [Run(needs={".ray/auth_token": needs.some_digest}, leaves=(".ray/auth_token",))],
    "ray start --head --disable-usage-stats": [Elsewhere(tests=(f"{_JOB}test_a_submitted_job_leaves_a_whole_store",))],
    "ray job submit --address http://HEAD:8265 --working-dir . -- python jobs/filter_laion.py "
    "--urls s3://bucket/laion_hr.parquet --out s3://bucket/million-ird": [
        Elsewhere(tests=(f"{_JOB}test_a_submitted_job_leaves_a_whole_store",))
    ],
    "ray job logs --address http://HEAD:8265 --follow ID": [Elsewhere(tests=(f"{_JOB}test_its_log_is_plain_lines",))],
    "dynet-filter --urls … --out STORE --retry-failed": [
        Run(
            needs={"links": needs.links, "STORE": needs.store, "weights": needs.prior},
            values={"…": "links"},
            more=_WEIGHED,
            leaves=("STORE/report/index.html",),
        )
    ],
    "dynet-filter --urls … --out STORE --no-shards": [
        Run(
            needs={"links": needs.links, "weights": needs.prior},
            values={"…": "links"},
            more=_WEIGHED,
            leaves=("STORE/images/*.tar",),
        )
    ],
    "dynet-filter judge --out STORE --threshold niqe=4.5 --dry-run": [
        Run(needs={"STORE": needs.store}, says="nothing was written (--dry-run)")
    ],
    "dynet-filter judge --out STORE --threshold musiq=60 --score": [
        Run(
            needs={"STORE": needs.store, "weights": needs.musiq},
            more="--weights weights",
            says="3 kept originals were scored",
        )
    ],
    "dynet-filter fit --good pristine/ --out weights/": [
        Run(needs={"pristine": needs.pictures}, leaves=("weights/niqe_modelparameters.mat",))
    ],
    "dynet-shard --min-res 1024 --out STORE STORE --source lsdir=LSDIR/HR --source div2k=DIV2K "
    "--source flickr2k=Flickr2K": [
        Run(
            needs={
                "STORE": needs.store,
                "LSDIR/HR": needs.few,
                "DIV2K": needs.fewer,
                "Flickr2K": needs.least,
            },
            more="--min-res 512",
            says="flickr2k",
            leaves=("STORE/shards/manifest.json",),
        )
    ],
    "dynet-filter status STORE": [Run(needs={"STORE": needs.store}, says="rows")],
    "dynet-report STORE": [Run(needs={"STORE": needs.store}, leaves=("STORE/report/index.html",))],
    "ray up jobs/cluster.yaml": [Elsewhere(tests=(f"{_LAUNCHER}test_up_and_submit_are_all_it_takes",))],
    "ray submit jobs/cluster.yaml jobs/filter_laion.py -- --urls s3://bucket/list.parquet --out s3://bucket/set": [
        Elsewhere(tests=(f"{_LAUNCHER}test_up_and_submit_are_all_it_takes",))
    ],
    "ray down jobs/cluster.yaml": [
        Elsewhere(tests=("tests/jobs/test_cluster_yaml.py::test_ray_down_leaves_no_machine",))
    ],
    "dynet-filter calibrate --good photos/ --bad rejects/ --degrade --pass-rate 0.8 --weights weights/ "
    "--out calibration": [
        Run(
            needs={"photos": needs.few, "rejects": needs.blurred, "weights": needs.prior},
            more="--min-res 512 --metrics niqe,brisque",
            leaves=("calibration/recipe.json", "calibration/calibration.html"),
        )
    ],
    "dynet-filter calibrate --ledger STORE --yield 0.02 --out calibration": [
        Run(needs={"STORE": needs.store}, leaves=("calibration/recipe.json",))
    ],
    "dynet-filter --recipe calibration/recipe.json --urls … --out STORE": [
        Run(
            needs={
                "calibration/recipe.json": needs.recipe,
                "links": needs.links,
                "weights": needs.prior,
            },
            values={"…": "links"},
            more="--weights weights --allow-private-hosts --attempts 1",
            leaves=("STORE/shards/manifest.json",),
        )
    ],
    "dynet-publish million-ird s3://bucket/million-ird --contact data@example.org": [
        Run(needs={"million-ird": needs.store}, leaves=("s3://bucket/million-ird/shards/manifest.json",))
    ],
    "dynet-publish million-ird s3://bucket/links --metadata-only": [
        Run(needs={"million-ird": needs.store}, leaves=("s3://bucket/links/shards/metadata.parquet",))
    ],
    "dynet-publish million-ird s3://bucket/set --endpoint-url https://minio.example": [
        Run(
            needs={"million-ird": needs.store},
            more="--endpoint-url {s3}",
            leaves=("s3://bucket/set/shards/manifest.json",),
        )
    ],
    "dynet-shard fsck STORE": [Run(needs={"STORE": needs.store}, says="STORE is whole")],
    "dynet-shard fsck STORE --repair [SOURCE…] [--source NAME=FOLDER]": [
        Run(
            needs={"STORE": needs.broken},
            values={"[SOURCE…]": "", "[--source NAME=FOLDER]": ""},
            says="mended: shards/",
        ),
        Run(
            needs={
                "STORE": needs.joined_and_broken,
                "SOURCE": needs.store,
                "FOLDER": needs.fewer,
            },
            values={"[SOURCE…]": "SOURCE", "[--source NAME=FOLDER]": "--source NAME=FOLDER"},
            says="mended: shards/",
        ),
    ],
    "dynet-shard forget STORE --urls FILE | --hosts FILE | --sha256 FILE [--purge]": [
        Run(
            needs={"STORE": needs.store, "FILE": file},
            values={"--urls FILE | --hosts FILE | --sha256 FILE": f"--{flag} FILE", "[--purge]": purge},
            says=f"1 of 1 {said} are in the set",
        )
        for flag, file, purge, said in (
            ("urls", needs.some_url, "", "links"),
            ("hosts", needs.some_host, "", "hosts"),
            ("sha256", needs.some_digest, "--purge", "SHA-256"),
        )
    ],
    "dynet-shard show STORE 0123456789abcdef_00512_01024": [
        Run(
            needs={"STORE": needs.drawn},
            values={"0123456789abcdef_00512_01024": PATCH},
            says="http://a.example/0.jpg",
        )
    ],
    "dynet-pretrain s3://bucket/million-ird --out s3://bucket/run-1": [
        Run(
            needs={"s3://bucket/million-ird": needs.drawn},
            more=_PRETRAIN,
            leaves=("s3://bucket/run-1/checkpoints/step-000000002.pt",),
        )
    ],
    "dynet-pretrain s3://bucket/million-ird --out s3://bucket/run-1 --ranks 8 --device cuda": [
        Run(
            needs={"s3://bucket/million-ird": needs.drawn},
            more=f"{_PRETRAIN} --ranks 2",
            leaves=("s3://bucket/run-1/checkpoints/step-000000002.pt",),
        )
    ],
    "dynet-pretrain million-ird --out run --set settings.precision=bf16 --set settings.compile=true": [
        Run(
            needs={"million-ird": needs.drawn},
            more=f"{_PRETRAIN} --set settings.compile=false",  # C++ for every block takes minutes
            leaves=("run/checkpoints/step-000000002.pt",),
        ),
        Elsewhere(tests=("tests/dynet/test_model.py::test_another_depth_compiles_nothing_again",)),
    ],
    "dynet-finetune --data data/Train --weights run-1/checkpoints/step-001000000.pt --out run-2 --valid data/Valid": [
        Run(
            needs={
                "data/Train": needs.pairs,
                "data/Valid": needs.pairs,
                "run-1/checkpoints/step-001000000.pt": needs.checkpoint,
            },
            more=_FINETUNE,
            leaves=("run-2/checkpoints/*.pt",),
        )
    ],
    "dynet-finetune --data data/Train --de_type derain dehaze --depth S --epochs 80 --out run-3": [
        Run(needs={"data/Train": needs.pairs}, more=_FINETUNE, leaves=("run-3/checkpoints/*.pt",))
    ],
    "dynet-finetune --shards s3://bucket/million-ird --de_type denoise_15 denoise_25 denoise_50 --out run-4": [
        Run(
            needs={"s3://bucket/million-ird": needs.drawn},
            more=_FINETUNE,
            leaves=("run-4/checkpoints/*.pt",),
        )
    ],
    "dynet-finetune --data data/Train --net promptir --out baseline": [
        Run(needs={"data/Train": needs.pairs}, more=_FINETUNE, leaves=("baseline/checkpoints/*.pt",))
    ],
    "dynet-evaluate --cost --depth S L 3,4,4,6": [Run(more="--size 32 --repeats 1", says="3,4,4,6")],
    "dynet-restore photo.jpg scans/ 'old/**/*.tif' --out restored --depth L --checkpoint step-001000000.pt": [
        Run(
            needs={
                "photo.jpg": needs.photo,
                "scans": needs.clean,
                "old/box/1.tif": needs.scan,
                "step-001000000.pt": needs.checkpoint,
            },
            more=_CPU,
            leaves=("restored/photo.png", "restored/0.png", "restored/box/1.tif"),
        )
    ],
    "dynet-restore scans/ --out restored --depth auto --budget-ms 500 --checkpoint step-001000000.pt": [
        Run(
            needs={"scans": needs.clean, "step-001000000.pt": needs.checkpoint},
            more=_CPU,
            leaves=("restored/0.png", "restored/1.png"),
        )
    ],
    "dynet-export step-001000000.pt --out exported --depth S L --format torch onnx weights": [
        Run(
            needs={"step-001000000.pt": needs.checkpoint},
            more="--depth 1,1,1,1 --size 16x24",
            leaves=("exported/*.pt2", "exported/*.onnx", "exported/dynet.pt"),
        )
    ],
    "dynet-evaluate --mode 3 --data test --checkpoint dynet.pt --out evaluation": [
        Run(
            needs={"test": needs.tests, "dynet.pt": needs.checkpoint},
            more=_CPU,
            leaves=("evaluation/table.md", "evaluation/index.html"),
        )
    ],
    "dynet-evaluate --set kodak=kodak24 --set rain=rain100h --sigma 25 --checkpoint dynet.pt --out evaluation": [
        Run(
            needs={
                "kodak24": needs.clean,
                "rain100h": needs.rainy,
                "dynet.pt": needs.checkpoint,
            },
            more=_CPU,
            leaves=("evaluation/table.md",),
        )
    ],
    "python jobs/ablation.py STORE --tests DIR --budget 30 --out ablation": [
        Run(
            needs={"jobs": needs.jobs, "STORE": needs.drawn, "DIR": needs.ablated},
            more="--budget 0.01 --width 8 --crop 16 --batch 2 --workers 0 --seeds 1 --pictures 1",
            leaves=("ablation/table.md",),
        )
    ],
}

#: By how a block begins.
SNIPPETS: dict[str, Snippet] = {
    "import pyarrow.dataset as ds": Snippet(
        needs={"million-ird": needs.many_shards},
        gives=lambda made: (
            list(made["ledger"]["reason"]).count("kept") == 3
            and np.asarray(made["sample"]["jpg"]).shape == (512, 512, 3)
            and made["rows"].count() == 3
        ),
    ),
    "from shards.stream import Cache, Plan, Stream": Snippet(
        needs={"s3://bucket/million-ird": needs.patches_128},
        values={"/scratch/ird": "scratch", "workers=4": "workers=1"},
        names=lambda: {"rank": 1, "world": 2, "epochs": 1},
        gives=lambda made: made["batch"].pixels.shape == (128, 3, 128, 128),
    ),
    "stream = Stream(root, Plan(batch=32, held_out=(0,)), ": Snippet(
        needs={"million-ird": needs.patches_128},
        values={'"cuda"': '"cpu"', "workers=2": "workers=1"},
        names=needs.of_training,
        gives=lambda made: made["one"].clean.shape == made["one"].degraded.shape == (32, 3, 128, 128),
    ),
    "model = DyNet()": Snippet(
        needs={"dynet_l.ckpt": needs.released},
        names=needs.of_the_network,
        gives=lambda made: made["config"] == made["model"].config,
    ),
    "import dynet": Snippet(
        needs={"step-001000000.pt": needs.checkpoint},
        names=lambda: {"image": np.zeros((24, 32, 3), np.uint8)},
        gives=lambda made: made["restored"].shape == (24, 32, 3) and made["restored"].dtype == np.uint8,
    ),
}
