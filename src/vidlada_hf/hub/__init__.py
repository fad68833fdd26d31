"""Checkpoints on disk and on the Hub: conversion of the official one, export, model card."""
