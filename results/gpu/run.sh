#!/bin/sh
# What only a GPU can show, the most important first: environment, precision, parity, training, speed and memory.
#
#     results/gpu/run.sh [FOLDER]     ten minutes at most, if Jittor's kernels are compiled
#
# FOLDER: CIFAR-10 for the trainers (their --data-dir; default: data). PYTHON chooses the interpreter. Each part writes
# into results/gpu/ as it goes, and keeps what it has when its time is up: the rows of matrix.py can be made anew one by
# one, by name.
data=${1:-data}
cd "$(dirname "$0")/../.." || exit
python=${PYTHON:-python3}
out=results/gpu
failed=0

part() {
    seconds=$1
    shift
    echo "== $*"
    timeout "$seconds" "$@" || { echo "== exit code $?: $*"; failed=1; }
}

part 60 "$python" -m jt_models.runtime
part 30 "$python" $out/precision.py
export NVIDIA_TF32_OVERRIDE=0
part 30 "$python" $out/precision.py
part 180 "$python" $out/matrix.py --jobs "${JOBS:-8}"
for framework in torch jittor; do
    run=runs/gpu/densenet-$framework
    kept=$out/training/densenet-$framework
    part 60 "$python" train_$framework.py --net densenet --device cuda --data-dir "$data" --epochs 3 --output-dir "$run"
    mkdir -p "$kept" && cp "$run/args.json" "$run/log.csv" "$run/result.json" "$kept"
done
nets="resnet18 densenet mobilenet vgg16_bn googlenet se_resnet18 densenet121 resnet50 inception_v3 alexnet lenet_bn"
part 90 "$python" bench.py $nets -b 128 --rounds 5 --batches 10 --output-dir $out/bench
for kind in torch jittor; do
    part 30 "$python" $out/steps.py $kind resnet18 densenet mobilenet vgg16_bn googlenet
done
unset NVIDIA_TF32_OVERRIDE
part 30 "$python" bench.py $nets -b 128 --rounds 5 --batches 10 --output-dir $out/bench
exit $failed
