#!/bin/sh
# What only a GPU can show, the most important first: environment, precision, parity, speed and memory, training.
#
#     results/gpu/run.sh [FOLDER]     about ten minutes once Jittor's kernels are compiled
#
# FOLDER: CIFAR-10 for the trainers (as --data-dir of train_jittor.py; default: data). PYTHON chooses the interpreter.
# Each part writes into results/gpu/ as it goes, and keeps what it has when its time is up.
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

part 300 "$python" -m jt_models.runtime
for tf32 in 0 1; do  # 0 forbids it; what else is set leaves it to the frameworks
    export NVIDIA_TF32_OVERRIDE=$tf32
    part 60 "$python" $out/precision.py
done
export NVIDIA_TF32_OVERRIDE=0
part "${MATRIX_SECONDS:-240}" "$python" $out/matrix.py --jobs "${JOBS:-8}"
part "${BENCH_SECONDS:-200}" "$python" bench.py resnet18 densenet mobilenet vgg16_bn googlenet se_resnet18 \
    densenet121 resnet50 inception_v3 alexnet lenet_bn -b 128 --rounds 5 --batches 10 --output-dir $out
for trainer in train_jittor.py train_torch.py; do
    part 100 "$python" $trainer --net densenet --device cuda --data-dir "$data" -b 128 --epochs 2 \
        --output-dir $out/densenet_cifar10_"${trainer%.py}"
done
unset NVIDIA_TF32_OVERRIDE
part "${BENCH_SECONDS:-200}" "$python" bench.py resnet18 densenet mobilenet vgg16_bn -b 128 --rounds 5 --batches 10 \
    --output-dir $out
exit $failed
