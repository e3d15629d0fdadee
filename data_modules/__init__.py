"""Lightning data modules: they read samples and make batches for a backbone."""

from __future__ import annotations

from data_modules.base import CompositeDataModule
from data_modules.cot_sft import CoTSFTDataModule
from data_modules.evaluation import EvaluationDataModule
from data_modules.grpo import GRPODataModule
from data_modules.lab_pretrain import LabPretrainDataModule

__all__ = ["CoTSFTDataModule", "CompositeDataModule", "EvaluationDataModule", "GRPODataModule", "LabPretrainDataModule"]
