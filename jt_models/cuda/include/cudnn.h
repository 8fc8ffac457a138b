// cuDNN 9 has no recurrent nets by the interface of version 6. Jittor's LSTM and GRU call it: they compile,
// and end with CUDNN_STATUS_NOT_SUPPORTED. No net of this zoo has one.
#pragma once
#include "cudnn_v9.h"
#ifdef __cplusplus
#define ZOO_REMOVED(name) \
    template <class... Arguments> inline cudnnStatus_t name(Arguments...) { return CUDNN_STATUS_NOT_SUPPORTED; }
ZOO_REMOVED(cudnnGetRNNLinLayerBiasParams)
ZOO_REMOVED(cudnnGetRNNLinLayerMatrixParams)
ZOO_REMOVED(cudnnGetRNNParamsSize)
ZOO_REMOVED(cudnnGetRNNTrainingReserveSize)
ZOO_REMOVED(cudnnGetRNNWorkspaceSize)
ZOO_REMOVED(cudnnRNNBackwardData)
ZOO_REMOVED(cudnnRNNBackwardWeights)
ZOO_REMOVED(cudnnRNNForwardInference)
ZOO_REMOVED(cudnnRNNForwardTraining)
ZOO_REMOVED(cudnnSetRNNDescriptor_v6)
#undef ZOO_REMOVED
#endif
